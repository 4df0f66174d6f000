#!/usr/bin/env bash
# Runs the cases of a folder against a binary and prints what is right, what came out, and a verdict.
#
#   scripts/cases.sh DIR [FILTER]        RFT: the binary [target/release/rft]; PYTHON: one with the package tokenizers, for the
#                                        cases of multiple-choice answers [python3]
#
# DIR has the folders `reports` (each with a README.md that has the command) and `hostile` (inputs that must end with one clear
# line and a non-zero status, without a panic, a hang, a flood of text or control characters). The kind of a case follows from the
# beginning of its name, so new cases of a known kind run too. Weights are not part of the cases: a model folder gets those of the
# embedded model, changed where the case is about weights. Exit status: 0 if every case that ran is right.
set -uo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
dir=$(cd "${1:?folder of cases}" && pwd)
filter=${2:-}
rft=$(realpath "${RFT:-$repo/target/release/rft}")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir "$work/bin" && ln -s "$rft" "$work/bin/rft"
export PATH=$work/bin:$PATH TINY=$repo/assets/tiny
PYTHON=$(command -v "${PYTHON:-python3}")
small='--steps 1 --set rollout.prompts_per_step=2 --set rollout.num_generations=2 --set eval.questions=0'
right=0 wrong=0 skipped=0

# run COMMAND: in the current folder, with limits on time and memory; sets rc, and the files out and err.
run() {
  (ulimit -v 24000000; timeout -k 5 "${limit:-60}" bash -c "$1") >out 2>err </dev/null
  rc=$?
}
# prints MODEL FOLDERS with the embedded model's missing files; $1: how the weights are changed.
fill() {
  local folder
  for folder in $(find . -name config.json -printf '%h\n'); do
    for file in "$TINY"/*; do [ -e "$folder/$(basename "$file")" ] || cp "$file" "$folder"; done
    chmod -R u+w "$folder"
    weights "$1" "$folder/model.safetensors"
  done
}
# Changes a safetensors file: nan, inf, big (every value) or one-nan; escape, dtype or long (a tensor's name or type).
weights() {
  [ "$1" = same ] || python3 - "$1" "$2" <<'P'
import json, struct, sys
how, path = sys.argv[1:]
data = bytearray(open(path, 'rb').read())
size = struct.unpack('<Q', data[:8])[0]
header, body = json.loads(data[8:8 + size]), data[8 + size:]
name = next((n for n in header if n.endswith('input_layernorm.weight')), None)
if how in ('nan', 'inf', 'big'):
    for tensor in (t for n, t in header.items() if n != '__metadata__'):
        a, b = tensor['data_offsets']
        value = {'nan': float('nan'), 'inf': float('inf'), 'big': 3e38}[how]
        one = struct.pack('<f', value) if tensor['dtype'] == 'F32' else struct.pack('<f', value)[2:]
        body[a:b] = one * ((b - a) // len(one))
elif how == 'one-nan':
    a, b = header[name]['data_offsets']
    width = {'F32': 4, 'BF16': 2, 'F16': 2}[header[name]['dtype']]
    body[a:a + width] = b'\xff' * width
elif how == 'escape':
    header['\x1b[31mred'] = header.pop(name)
elif how == 'dtype':
    header[name]['dtype'] = '\x1b[31mF32'
elif how == 'long':
    header['n' * 1_000_000] = header.pop(name)
elif how == 'rows':
    name = 'model.embed_tokens.weight'
    rows, columns = header[name]['shape']
    width = (header[name]['data_offsets'][1] - header[name]['data_offsets'][0]) // rows
    a, cut = header[name]['data_offsets'][0], 70
    end = header[name]['data_offsets'][1]
    body = body[:end - cut * width] + body[end:]
    for n, tensor in header.items():
        if n != '__metadata__' and tensor['data_offsets'][0] >= end:
            tensor['data_offsets'] = [x - cut * width for x in tensor['data_offsets']]
    header[name] |= {'shape': [rows - cut, columns], 'data_offsets': [a, end - cut * width]}
text = json.dumps(header).encode()
open(path, 'wb').write(struct.pack('<Q', len(text)) + text + body)
P
}
# Writes a GGUF header with one tensor of a type.
gguf_with_type() {
  python3 -c "import struct, sys
text = lambda it: struct.pack('<Q', len(it)) + it
header = b'GGUF' + struct.pack('<IQQ', 3, 1, 0) + text(b'token_embd.weight') + struct.pack('<IQQIQ', 2, 256, 4, int(sys.argv[1]), 0)
open(sys.argv[2], 'wb').write(header + bytes(4096))" "$1" "$2"
}
# The verdict for hostile input: a clear refusal.
refused() {
  local bytes lines
  bytes=$(wc -c <err) lines=$(wc -l <err)
  if [ "$rc" -eq 124 ] || [ "$rc" -eq 137 ]; then echo 'it hangs'
  elif [ "$rc" -ge 128 ] || [ "$rc" -eq 101 ] || grep -q panicked err; then echo "it crashes (status $rc)"
  elif [ "$rc" -eq 0 ]; then echo 'it is accepted'
  elif LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]' err; then echo 'control characters in the output'
  elif [ "$bytes" -gt 3000 ] || [ "$lines" -gt 12 ]; then echo "a flood: $bytes bytes, $lines lines"
  elif ! grep -q '^error: ' err; then echo 'no error line'
  fi
}
# The verdict for input that is either refused or used without harm.
harmless() {
  if [ "$rc" -eq 0 ] && ! LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]' err; then :; else refused; fi
}
says() { grep -qE -- "$1" out err || echo "no text that matches: $1"; }
silent_on() { ! grep -qE -- "$1" out err || echo "found: $1"; }
ran() { [ "$rc" -eq 0 ] || echo "status $rc: $(grep -m1 -h '^error' out err)"; }

report() { # NAME EXPECTED WHAT-IS-WRONG
  local got
  got=$( (grep -hE '^(error|hint|rc=)' err out; head -n 3 out; head -n 3 err) | awk '!seen[$0]++' | head -n 3 | cut -c1-240 | cat -v)
  if [ -z "$3" ]; then right=$((right + 1)); verdict=right; else wrong=$((wrong + 1)); verdict="WRONG: $3"; fi
  printf '%s\n  expected  %s\n  got       %s\n  verdict   %s\n' "$1" "$2" "${got//$'\n'/$'\n'            }" "$verdict"
}
skip() { skipped=$((skipped + 1)); printf '%s\n  skipped   %s\n' "$1" "$2"; }
enter() { # CASE-FOLDER: a writable copy
  local copy=$work/cases/$(basename "$(dirname "$1")")/$(basename "$1")
  mkdir -p "$(dirname "$copy")" && cp -r "$1" "$copy" && chmod -R u+w "$copy" && cd "$copy"
}
# The command of a README.md: its first block of code.
command_of() { awk '/^```/ { if (inside) exit; inside = 1; next } inside' README.md; }
expected_of() { sed -n 's/^expected: //p' README.md | cut -c1-200; }

hostile() {
  local name=$1 want='one clear line, non-zero status'
  case $name in
  broken-pipe) run "set -o pipefail; rft eval --bench arithmetic --limit 2 --max-tokens 2 --ppe none --out e; rft eval show e | true; echo \$?
    rft train --ppe none $small --name a 2>&1 | true; echo \$?; ls runs/a/adapter; rft eval list >/dev/full; echo \$?"
    report "$name" 'quiet, statuses 0 or 141, the run continues; 1 if the disk is full' "$(silent_on panicked; says '^adapter_model'; [ "$(grep -cE '^(0|1|141)$' out)" -eq 3 ] || echo 'another status')" ;;
  tp_*) run 'rft prompts render none --question q --template chat_template.jinja'; report "$name" "$want" "$(refused)" ;;
  tk_*) cp -n "$TINY"/* . ; run 'rft generate --preset tiny --model . --max-tokens 4 --ppe none x'; report "$name" "$want" "$(refused)" ;;
  ct-*)
    local flags="--ppe none --config c.toml $small"
    case $name in *ppe*) flags=${flags#--ppe none} ;; *train.steps*) flags=${flags/--steps 1 /} ;; *num_generations*) flags=${flags/--set rollout.num_generations=2 /} ;; esac
    run "rft train $flags"; report "$name" "$want" "$(refused)" ;;
  ad-*)
    if [ ! -d "$work/adapter" ]; then
      (cd "$work" && rft train --ppe none $small --name a >/dev/null 2>&1 && cp -r runs/a/adapter "$work/adapter")
    fi
    cp -n "$work/adapter"/* .
    [ "$name" != ad-all_3e38 ] || weights big adapter_model.safetensors
    run 'rft generate --adapter . --max-tokens 4 --ppe none x'; report "$name" "$want" "$(refused)" ;;
  st-* | cj_* | fz-st-* | fz-tok-* | token-beyond-embedding)
    local change=same model=.
    case $name in st-allnan) change=nan ;; st-allinf) change=inf ;; st-allbig) change=big ;; st-dtype-esc) change=dtype ;;
      st-name-esc) change=escape ;; st-name-1MB) change=long ;; fz-st-1-79) change=escape ;; fz-st-1-9) change=long ;; token-beyond*) change=same model=m ;;
    esac
    case $name in fz-tok-*) cp input tokenizer.json ;; esac
    case $name in fz-*) cp -n "$TINY/config.json" . ;; st-fifo*) cp "$TINY/config.json" . ;; esac
    fill "$change"
    case $name in st-noperm) chmod 000 model.safetensors; [ "$(id -u)" -ne 0 ] || { skip "$name" 'root may read everything'; return; } ;;
      st-fifo*) rm config.json; mkfifo config.json ;; st-idx-esc) rm model.safetensors ;;
    esac
    run "rft generate --preset tiny --model $model --max-tokens 4 --ppe none x"
    case $name in token-beyond*) run "rft generate --preset tiny --model m --max-tokens 4 --ppe none --prompt-file /dev/null x; rft generate --preset tiny --model m --ppe none --max-tokens 4 x" ;; esac
    report "$name" "$want" "$(refused)" ;;
  fz-jsonl-*) cp input a.jsonl; run 'rft reward test --limit 3 --data a.jsonl'; report "$name" "$want" "$(refused)" ;;
  data-*) run 'rft reward test --data a.csv'; report "$name" "$want" "$(refused)" ;;
  csv-wide-header) limit=20 run "$(grep -v '^#' run.sh)"; report "$name" 'an error within seconds' "$(refused)" ;;
  humaneval-ids) RFT_DATA_DIR=${RFT_DATA_DIR:-} run '[ -n "$RFT_DATA_DIR" ] && bash run.sh'
    if [ -n "${RFT_DATA_DIR:-}" ]; then report "$name" 'a score' "$(ran)"; else skip "$name" 'RFT_DATA_DIR is not set'; fi ;;
  lr-inf) run "rft train --ppe none --steps 3 --set train.learning_rate=1e30 --set eval.questions=0 --name a; s=\$?; rft generate --adapter runs/a --ppe none --max-tokens 4 x && exit 0; exit \$s"
    report "$name" 'an error that names the learning rate or the update; no adapter that cannot be loaded' "$(refused)" ;;
  resume-other-data) rm -rf runs m; mkdir -p cfg; (rft train --ppe none $small --name c && rft merge runs/c --out cfg/merged) >/dev/null 2>&1
    run 'sh run.sh 2>&1 | sed -n "/--- resume/,\$p"'; report "$name" 'refused; the changed files are named' "$(says 'rc=1'; says 'q.jsonl'; says 'model.safetensors')" ;;
  run-dir-deleted) run 'bash run.sh'; report "$name" 'an error, non-zero status' "$(says 'rc=[1-9]'; says '^error')" ;;
  score-1e39) run "$(cat run.sh)"; if [ "$rc" -eq 0 ]; then run "python3 -c \"import json; [json.loads(l) for l in open('runs/late/completions.jsonl')]\" && rft runs show runs/late 2>/dev/null || rft report runs/late --out r"; fi
    report "$name" 'refused, or completions.jsonl can be read' "$(harmless)" ;;
  *) skip "$name" 'unknown kind' ;;
  esac
}

# The rows of a file of answers whose verdict is not the expected one. Answers of the kinds fn- are right, those of fp- are not,
# except for the rows that are there for comparison: where only a sign, a unit or a condition makes the difference.
rows_judged() {
  python3 - "$1" <<'P'
import json, re, sys
kind, rows = sys.argv[1], [json.loads(line) for line in open('out')]
faults = [] if len(rows) == sum(1 for line in open('in.jsonl') if line.strip()) else ['not every row has a verdict']
for row in rows:
    gold, answer, allowed = row['gold'], row['answer'], {'correct'}
    bare = bool(re.fullmatch(r'[\d.,]+', gold))
    if kind.startswith('fp-'):
        right = '\\infty' in gold or (kind == 'fp-eval-negated-answer' and (gold != '33' or not re.search(
            r"not|n't|between|times|squared|\?|negative|wrong|or |more|least|most|than|thousand|half|twice|to |plus|minus", answer)))
        # The place of the minus decides: `negative 33` is -33.
        allowed = {'correct'} if right else {'wrong', 'undecided'}
    elif kind == 'fn-constant-of-integration' and not re.search(r'[cCkK]\b|[cC]_|const|mathrm', answer.replace('\\frac', '').replace('cdot', '')):
        allowed = {'wrong', 'undecided'}
    elif kind == 'fn-percent-words' and bare and float(gold) > 1:
        allowed = {'wrong', 'undecided'}
    elif kind == 'fn-plain-units' and 'm/s' in gold and 'km/h' in answer:
        allowed = {'wrong', 'undecided'}
    elif kind == 'fn-mod' and bare and 'equiv' in answer or kind == 'fn-function-for-all-x' and re.search(r'for \} *x *[<>]', answer):
        allowed = {'correct', 'undecided'}
    elif kind in ('fn-unit-vectors', 'fn-combinations-notation'):
        allowed = {'correct', 'undecided'}
    elif kind == 'note-percent-bare-gold':
        # Without the question, a percent sign counts; see docs/reward-bench.md.
        allowed = {'wrong'}
    elif kind.startswith('note-'):
        allowed = {'correct', 'undecided'} if gold != answer else {'correct'}
    if row['verdict'] not in allowed:
        faults.append(f"{row['verdict']}: {gold} <- {answer[:50]}")
print('; '.join(faults[:3]))
P
}

reports() {
  local name=$1 want fault
  want=$(expected_of)
  case $name in
  gguf-iq4-hint) for type in 23=IQ4_XS 20=IQ4_NL 39=MXFP4; do gguf_with_type "${type%=*}" "${type#*=}.gguf"; done ;;
  gguf-*) skip "$name" 'the GGUF files are not part of the cases'; return ;;
  ansi-in-log) skip "$name" 'its server is not part of the cases'; return ;;
  gpqa-*) mkdir -p assets && ln -s "$TINY" assets/tiny
    "$PYTHON" -c 'import tokenizers' 2>/dev/null || { skip "$name" 'PYTHON has no package tokenizers'; return; }
    limit=600 run "$(command_of | sed "s#venv/bin/python#$PYTHON#g")"
    report "$name" "$want" "$( (awk '$2 != "correct" { print "not correct: " $1 }' out; [ "$(wc -l <out)" -ge 10 ] || echo 'too few answers') | head -n 3 | paste -sd' ')"; return ;;
  hub-*) [ -e hub.py ] || cp "$repo/tests/oracle/hub_stub.py" hub.py ;;
  esac
  [ "$name" = nan-weights ] && fill one-nan || fill same
  [ "$name" = token-past-embedding ] && weights rows smaller/model.safetensors
  if [ "$name" = pissa-adapter ]; then
    (cd "$work" && [ -d adapter ] || { rft train --ppe none $small --name a && cp -r runs/a/adapter .; }) >/dev/null 2>&1
    mkdir -p f32 && cp "$TINY"/* f32
    for folder in */adapter_config.json; do cp -n "$work/adapter/adapter_model.safetensors" "$(dirname "$folder")"; done
  fi
  case $name in
  fn-* | fp-* | note-*)
    run "$(command_of | sed 's/ *|.*//')"
    fault=$(rows_judged "$name") ;;
  *)
    [ "$name" != broken-pipe ] || local limit=300
    run "$(command_of | sed 's#venv/bin/python#python3#g')"
    case $name in
    broken-pipe) fault=$(silent_on 'failed printing|^error: Broken'; [ -z "$(grep -E '^[a-z].* [0-9]+$' out | grep -vE ' (0|141)$|^eval 1$')" ] || echo 'another status'; says '^adapter') ;;
    bench-name-collision) fault=$(silent_on 'asked otherwise'; silent_on '│ -- ') ;;
    crlf-*) fault=$(silent_on '\^M|M-oM-;M-\?|\\r|ufeff') ;;
    eos-*) fault=$(silent_on '^<.im_end') ;;
    eval-drops-rows) fault=$(says '2 of [0-9]+ rows') ;;
    gguf-iq4-hint) fault=$(silent_on 'download'; for q in IQ4_XS IQ4_NL MXFP4; do says "quantization $q is not supported"; done) ;;
    jinja-*) fault=$(for line in 'iter: qxy' 'rsplit: y' 'prefix: xy' 'percent: user: qxy' 'seq: True' 'part: q'; do says "^$line$"; done) ;;
    hub-*) fault=$(silent_on 'unknown split') ;;
    json-big-int) fault=$(silent_on 'e\+|"wrong"') ;;
    nan-weights) fault=$(silent_on 'interval'; says '^error') ;;
    nested-rope*) fault=$([ "$(sed -n 's/^flat: //p' out)" = "$(sed -n 's/^nested: //p' out)" ] || echo 'nested differs from flat') ;;
    parquet-codecs) fault=$(silent_on 'compile time|^error') ;;
    parquet-float32) fault=$(silent_on '3.1400|0999') ;;
    pissa-adapter) fault=$(silent_on '^out-') ;;
    resume-changed*) fault=$(says '^error'; silent_on '"gold":"6"') ;;
    token-past*) fault=$(silent_on panicked; says '^error') ;;
    verl-*) fault=$(silent_on 'has no column|holds a list|found a list') ;;
    worked-*) fault=$(silent_on 'cannot be read') ;;
    *) skip "$name" 'no check for this kind'; return ;;
    esac ;;
  esac
  report "$name" "$want" "$fault"
}

for kind in hostile reports; do
  for folder in "$dir/$kind"/*${filter}*/; do
    [ -d "$folder" ] || continue
    enter "${folder%/}"
    $kind "$(basename "$folder")"
  done
done
echo "$right right, $wrong wrong, $skipped skipped"
[ "$wrong" -eq 0 ]
