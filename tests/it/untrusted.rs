//! Templates and data files that would use up the stack, the memory or the time of the process that reads them. Each test goes through
//! the command, which gives them to a separate process.

use std::fs;

use parquet::basic::Compression;

use crate::cli::{error, rft, with};
use crate::data::gzip;
use crate::parquet_file::{Leaf, parquet};

const RENDER: [&str; 6] = ["prompts", "render", "none", "--question=q", "--template", "t.jinja"];

/// The error of a template, without the operation.
#[track_caller]
fn refused(template: &str) -> String {
    let error = error(&with("t.jinja", template.as_bytes()), &RENDER);
    let short: String = template.chars().take(100).collect();
    let cause = ["error: render the chat template: ", "error: read `t.jinja`: compile the chat template: "]
        .iter()
        .find_map(|start| error.strip_prefix(start));
    assert!(error.len() < 3000, "{short}: {} bytes", error.len());
    cause.unwrap_or_else(|| panic!("{short}: {error}")).to_owned()
}

const DEEP: &str = "it nests values too deeply, or needs more than 768 MiB of memory\n";
const SLOW: &str = "it needs more than 1 s of processor time\n";
const FUEL: &str = "engine ran out of fuel";

#[test]
fn values_that_contain_themselves_are_refused() {
    for template in [
        "{% set a = namespace() %}{% set a.x = a %}{{ a }}",
        "{% set a = namespace() %}{% set a.x = [a] %}{{ a.x }}",
        "{% set a = namespace() %}{% set a.x = a %}{{ a | string | length }}",
        "{% set a = namespace() %}{% set a.x = a %}{{ a | items | list }}",
        "{% set a = namespace() %}{% set a.x = a %}{{ {a: 1} }}",
        "{% set a = namespace() %}{% set a.x = a %}{{ '%s' % a }}",
        "{% set a = namespace() %}{% set a.x = a %}{{ raise_exception(a | string) }}",
        "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = b %}{% set b.x = a %}{{ a == b }}",
        "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = b %}{% set b.x = a %}{{ [a, b] | sort }}",
    ] {
        assert_eq!(refused(template), DEEP, "{template}");
    }
    let json = refused("{% set a = namespace() %}{% set a.x = a %}{{ a | tojson }}");
    assert!(json.contains("tojson: the value is nested too deeply"), "{json}");
}

#[test]
fn deeply_nested_values_are_refused() {
    let nested = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}";
    for end in ["{{ ns.x == ns.y }}", "{{ ns.x }}", "{{ ns.x | string | length }}"] {
        assert_eq!(refused(&format!("{nested}{end}")), DEEP, "{end}");
    }
    assert!(refused(&format!("{nested}{{{{ ns.x | tojson }}}}")).contains("nested too deeply"));
}

/// Twice the same list within a list, and this 45 times: walking through it takes 2^45 steps.
#[test]
fn values_that_share_their_parts_are_refused_if_walking_through_them_takes_forever() {
    let shared = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(45) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
    for end in
        ["{{ ns.x == ns.y }}", "{{ {ns.x: 1} | length }}", "{{ ns.x in [ns.y] }}", "{{ [ns.x, ns.y] | unique | list }}"]
    {
        assert_eq!(refused(&format!("{shared}{end}")), SLOW, "{end}");
    }
    assert!(refused(&format!("{shared}{{{{ ns.x | tojson }}}}")).contains("tojson: the text is too long"));
    assert!(refused(&format!("{shared}{{{{ ns.x }}}}")).contains("the output is longer than"));
}

#[test]
fn templates_that_ask_for_memory_are_refused() {
    for (template, reason) in [
        ("{{ 'x' * 1000000000 }}", FUEL),
        ("{{ ('a' * 1000000) | replace('a', 'b' * 1000000) | length }}", FUEL),
        ("{{ ('a' * 1000000).replace('a', 'b' * 1000000) | length }}", DEEP),
        ("{{ ('b' * 1000000).join('a' * 1000000) | length }}", DEEP),
        (
            "{% set s = 'a' * 1000000 %}{{ range(10000) | list | tojson(separators=(s, s)) | length }}",
            "the text is too long",
        ),
        ("{{ 'a'.center(10 ** 12) }}", "the padding is too long"),
        ("{{ 'a'.zfill(10 ** 12) }}", "the padding is too long"),
        ("{{ ('\\t' * 10000).expandtabs(10 ** 12) }}", "the text is too long"),
        ("{{ '%1000000000s' % 'a' }}", "a width or a precision in a format is too large"),
        ("{{ '{:1000000000}'.format('a') }}", "a width or a precision in a format is too large"),
        ("{{ '{:.99999}'.format(1.5) }}", "a width or a precision in a format is too large"),
        ("{{ [1] | slice(1000000000) | list }}", FUEL),
        ("{{ 'x' * 3000000 }}", "the output is longer than"),
    ] {
        let error = refused(template);
        assert!(error.contains(reason), "{template}: {error}");
    }
}

#[test]
fn templates_with_deep_syntax_are_refused() {
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{}{}", "{% if 1 %}".repeat(50_000), "{% endif %}".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "~1".repeat(200_000)),
        format!("{{{{ {}x }}}}", "a.".repeat(100_000)),
        format!("{{{{ 1{} }}}}", " | string".repeat(100_000)),
        format!("{{{{ 'a'{} }}}}", " % ()".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(50_000)),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
    ] {
        refused(&source);
    }
}

#[test]
fn a_template_cannot_write_hints_or_lines_of_its_own() {
    let error = refused("{{ raise_exception('a\nhint: run this\nerror: b') }}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_prompt_of_many_special_tokens_is_encoded() {
    let folder = with("t.jinja", b"{{ '<|im_start|>a' * 100000 }}");
    let output = rft(folder.path()).args(RENDER).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 1_300_001);
}

/// The message of a data file.
#[track_caller]
fn data_error(name: &str, bytes: &[u8]) -> String {
    error(&with(name, bytes), &["reward", "test", "--limit=3", "--data", name])
}

#[test]
fn compressed_data_expand_up_to_a_limit() {
    let limit = "it takes more than 256 MiB when it is read, the limit\nhint: check where it comes from";
    for (name, line) in [("a.jsonl.gz", "{}\n"), ("a.csv.gz", "\0\0\0"), ("a.json.gz", "[[[")] {
        let error = data_error(name, &gzip(line.repeat(100 << 20).as_bytes()));
        assert!(error.starts_with(&format!("error: read `{name}`: {limit}")), "{error}");
    }
}

#[test]
fn rows_of_many_empty_cells_take_up_to_a_limit_of_memory() {
    let header: Vec<String> = (0..2000).map(|it| format!("c{it}")).collect();
    let row = ",".repeat(1999);
    let file = format!("{}\n{}", header.join(","), format!("{row}\n").repeat(3000));
    let error = data_error("a.csv", file.as_bytes());
    assert!(error.contains("it takes more than 512 MiB"), "{error}");
}

/// A file whose only page claims to be much larger than it is.
#[test]
fn a_damaged_parquet_file_does_not_end_the_program() {
    let schema = "message m { required binary question (UTF8); required binary answer (UTF8); }";
    let texts = |text: &str| Leaf::text(vec![text.repeat(100); 2000]);
    let bytes = parquet(schema, Compression::SNAPPY, &[texts("1 + 1?"), texts("2")]);
    for at in (4..bytes.len().min(400)).step_by(3) {
        let mut damaged = bytes.clone();
        for byte in &mut damaged[at..at + 4] {
            *byte = 0xff;
        }
        let folder = with("a.parquet", &damaged);
        let output = rft(folder.path()).args(["reward", "test", "--limit=3", "--data", "a.parquet"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code < 2) && !said.contains("panicked"), "{at}: {said}");
    }
}

#[test]
fn a_process_for_untrusted_input_ends_with_its_channel() {
    let folder = with("x", b"");
    for command in ["render-templates", "read-parquet"] {
        let output = rft(folder.path()).arg(command).write_stdin(vec![]).output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty(), "{command}");
        // A length without the message.
        let output = rft(folder.path()).arg(command).write_stdin(b"\x10\0\0\0{".to_vec()).output().unwrap();
        assert!(!output.status.success(), "{command}");
    }
    assert!(fs::read(folder.path().join("x")).unwrap().is_empty());
}
