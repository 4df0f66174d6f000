"""Writes tests/fixtures/chat_templates.json: conversations rendered by transformers, for tests/it/templates.rs.

    python tests/oracle/chat_templates.py [MODEL.gguf ...]        (pip install transformers jinja2 gguf)

Each case is one template and one conversation; `expected` is null if transformers refuses it. The templates below were
written for this table: each uses the features that the templates of one model family use. The GGUF files give two real ones
(Qwen2.5-Coder-0.5B-Instruct and SmolLM2-135M-Instruct, both Apache-2.0); without the files, their cases are kept unchanged.
"""

import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "chat_templates.json"
NOW = 1_764_595_445  # 2025-12-01 13:24:05 UTC


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = FixedClock

TEMPLATES = {
    # Zephyr, TinyLlama: string sums, the end token after each turn, tags on separate lines.
    "tags": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
""",
    # Llama 3: the date, trimmed contents, a system message removed from the list.
    "dated": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- The first message may be the system's. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{% endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
        {{- '{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' }}
        {{- message.tool_calls[0].function.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    # Qwen3: namespaces, a reversed list, thoughts removed from earlier answers.
    "thoughts": """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    # Gemma, Mistral: refuses some conversations, renames roles.
    "strict": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    # Training templates: the assistant's text between generation tags, with and without white-space control.
    "generation": """{% for message in messages %}
  {% if message.role == 'assistant' %}
    {{- '[A]' }}
    {% generation %}
{{ message.content }}
    {% endgeneration %}
  {% else %}
    {%- generation -%}
    {{ '[' ~ message.role ~ '] ' ~ message.content ~ '\\n' }}
    {%- endgeneration %}

  {% endif %}
{% endfor %}
""",
    # Everything a formatter can get wrong.
    "values": """{{ none }}|{{ true }}|{{ not true }}|{{ missing }}|{{ missing is defined }}|{{ 7 // 2 }}|{{ 7 / 2 }}|{{ 1.0 }}|{{ 2 ** 10 }}|{{ -7 % 3 }}
{%- set data = {'b': '<&\\'">é\\u2028', 'a': [1, 2.5, none, true, {}], 'c': {'nested': []}} %}
{{ data | tojson }}
{{ data | tojson(indent=2) }}
{{ data.a | length }} {{ data.items() | list | length }} {{ data['c'].keys() | list | join(',') }}
{{ 'a-b-c'.split('-') | join('+') }} {{ 'x' ~ 1 ~ none }} {{ ' pad '.strip() }} {{ 'Title case'.title() }} {{ 'abc'[1:] }} {{ 'abc'[::-1] }}
{{ 'a%sb' | format('X') }} {{ 'q' in 'query' }} {{ 3 in [1, 2, 3] }} {{ 'aXbX'.replace('X', '') }}
{{ messages | map(attribute='role') | list | join(' ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ (messages | last).role }}
{{ messages[0].get('name', 'nobody') }} {{ messages[-1]['content'] | upper }} {{ 'yes' if messages is sequence and messages[0] is mapping else 'no' }}
""",
    # Loop controls, macros, default values, comments and line ends.
    "control": """{# a comment
   of two lines #}
{% macro turn(role, content='(empty)') -%}
<{{ role }}>{{ content }}</{{ role }}>
{%- endmacro %}
{% for message in messages if message.role != 'system' %}
    {%- if loop.index > 3 %}{% break %}{% endif %}
    {%- if message.content == 'skip' %}{% continue %}{% endif %}
    {{- turn(message.role, message.content) if message.content else turn(message.role) }}
{% endfor %}
{{ prompt | default('no prompt') }}{{ '\\n' if add_generation_prompt else '' }}
{%- if loop is defined %}never{% endif %}
  {% raw %}{{ raw }}{% endraw %}
\ttab\\n
""",
}

SYSTEM = {"role": "system", "content": "  Think first.\nAnswer in <answer></answer>.  "}
USER = {"role": "user", "content": "What is 17 * 3?"}
REPLY = {"role": "assistant", "content": "<think>\n17*3 = 51\n</think>\n\nIt is \\boxed{51}."}
CONVERSATIONS = {
    "question": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, REPLY, {"role": "user", "content": "  And 18 * 3?\n"}],
    "system turns": [SYSTEM, USER, REPLY, {"role": "user", "content": "skip"}, REPLY],
    "two questions": [USER, {"role": "user", "content": ""}],
    "unicode": [{"role": "user", "content": "Wie groß ist ∑ 1/n²?\u2028 \U0001f642 e\u0301 {{ 7*7 }} {% if %} </s><|im_end|> \\n \"quoted\" <b>&amp;</b>\r\n\ttab"}],
}


def render(template, messages, add_generation_prompt):
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[messages],
            chat_template=template["source"],
            add_generation_prompt=add_generation_prompt,
            bos_token=template["bos_token"],
            eos_token=template["eos_token"],
        )
        return texts[0]
    except Exception as error:  # transformers renders no text, for whatever reason
        print(f"  refused: {error}", file=sys.stderr)
        return None


def main():
    old = json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {"templates": {}, "cases": []}
    templates = {name: {"source": source, "bos_token": "<s>", "eos_token": "</s>"} for name, source in TEMPLATES.items()}
    for path in sys.argv[1:]:
        from gguf import GGUFReader

        fields = GGUFReader(path).fields
        value = lambda key: fields[key].contents()
        token = lambda kind: value("tokenizer.ggml.tokens")[value(f"tokenizer.ggml.{kind}_token_id")]
        name = f"{value('general.name')}, Apache-2.0"
        templates[name] = {"source": value("tokenizer.chat_template"), "bos_token": token("bos"), "eos_token": token("eos")}

    cases = [
        {
            "name": f"{name}: {conversation}" + ("" if add_generation_prompt else ", no prompt"),
            "template": name,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "expected": render(template, messages, add_generation_prompt),
        }
        for name, template in templates.items()
        for conversation, messages in CONVERSATIONS.items()
        for add_generation_prompt in (True, False)
    ]
    cases += [case for case in old["cases"] if case["template"] not in templates]
    templates = {**old["templates"], **templates}
    FIXTURE.write_text(json.dumps({"now": NOW, "templates": templates, "cases": cases}, indent=1) + "\n")
    print(f"{len(cases)} cases, {sum(case['expected'] is None for case in cases)} refused")


main()
