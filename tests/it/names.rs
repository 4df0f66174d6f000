//! One notion, one name.

use std::path::Path;
use std::process::Command;

#[test]
fn no_type_name_occurs_twice() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/duplicate-types.sh");
    let output = Command::new("sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
