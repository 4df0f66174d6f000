"""Writes tests/fixtures/tokenizer_ids.json: token ids of strings in transformers, for tests/it/tokenizer.rs.

    python tests/oracle/tokenizer_ids.py MODELS_DIR        (pip install transformers gguf)

MODELS_DIR contains qwen-0.5b/model.gguf (Qwen2.5-Coder-0.5B-Instruct) and smollm-135m/model.gguf (SmolLM2-135M-Instruct). The
tokenizers are built from the vocabulary and merges in these files, with the class named in the model's tokenizer_config.json
(Qwen2Tokenizer), and for SmolLM2 from the components listed in its published tokenizer.json.
"""

import json
import pathlib
import random
import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "tokenizer_ids.json"

TEXTS = [
    "", " ", "  ", "\n", "\n\n\n", " \n \n", "\t\tx", "a", " a", "a ", "Hello, world!", "hello   world", "I'm you're WE'LL 'S 's",
    "What is 17 * 3?", "1234567890", " 12 345,678.90", "3.14159e-10", "x1y22z333", "²³¹ ½ Ⅳ ٣ १२",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))\n", "\\frac{1}{2} \\boxed{\\sqrt[3]{x^2}} $$\\int_0^1$$",
    "<think>\n17*3 = 51\n</think>\n\n<answer>\\boxed{51}</answer>", "line\r\nline\r\rline", "trailing   \n   leading",
    "Grüße, señor! Ça va? Łódź Ørsted", "数学は楽しい。2つの数", "Привет, мир", "שלום עולם", "مرحبا ١٢٣", "🙂🏳️‍🌈👨‍👩‍👧 ok",
    "zero\u200bwidth \u00a0nbsp \u3000wide \ufeffbom", "!!!???...;;;---___===", "http://example.com/a?b=c&d=%20#e",
    "ẞß ﬁ ǅ", "\x00\x01\x7f", "a\u2028b\u2029c\u0085d", "'''quotes''' \"double\" `tick`", "CamelCaseAndSNAKE_CASE",
    "<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|><|fim_prefix|>x<|file_sep|>", "<|im_start|", "<tool_call>{}</tool_call>",
    "<repo_name>x<empty_output>", "<|im_end|><|im_end|> <|im_end|>x",
]


def random_texts(count):
    draw = random.Random(7)
    alphabet = [chr(c) for c in range(32, 127)] * 4 + list(" \n\t0123456789") * 12 + list("éüß漢字Ωж🙂\u00a0\u200d…—“”٣½\r")
    return ["".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(count)]


def parts(path):
    fields = GGUFReader(path).fields
    value = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    tokens, types = value("tokens"), value("token_type")
    added = [(id, token, types[id] == 3) for id, token in enumerate(tokens) if types[id] in (3, 4)]
    vocabulary = {token: id for id, token in enumerate(tokens) if types[id] == 1}
    return vocabulary, [tuple(merge.split(" ")) for merge in value("merges")], added


def qwen(path):
    vocabulary, merges, added = parts(path)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for _, token, special in added])
    assert all(tokenizer.convert_tokens_to_ids(token) == id for id, token, _ in added)
    return tokenizer


def smollm(path):
    vocabulary, merges, added = parts(path)
    vocabulary |= {token: id for id, token, _ in added}  # its tokenizer.json also has them in the vocabulary
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for _, token, _ in added])
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def main():
    folder = pathlib.Path(sys.argv[1])
    texts = TEXTS + random_texts(200)
    # The last text is decomposed: Qwen2's tokenizer composes it (NFC), SmolLM2's does not.
    texts.append("e\u0301a\u0308 \u1112\u1161\u11ab")
    models_ids = {}
    for name, tokenizer in (
        ("qwen-0.5b", qwen(folder / "qwen-0.5b/model.gguf")),
        ("smollm-135m", smollm(folder / "smollm-135m/model.gguf")),
    ):
        models_ids[name] = [
            {
                "parsed": tokenizer.encode(text, add_special_tokens=False),
                "decoded": tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=False,
                                            clean_up_tokenization_spaces=False),
            }
            for text in texts
        ]
    rows = ",\n".join(
        json.dumps({"text": text, **{name: ids[i]["parsed"] for name, ids in models_ids.items()}})
        for i, text in enumerate(texts)
    )
    for name, ids in models_ids.items():
        assert all(item["decoded"] == text for item, text in zip(ids[:-1], texts)), name
    FIXTURE.write_text(f"[\n{rows}\n]\n")
    print(f"{len(texts)} texts")


main()
