//! The first thing that a newcomer types.

use std::process::Command;

use hearth_tests::{clips, processes::program};

#[test]
fn the_demo_proves_every_pixel() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = Command::new(program("hearth-standalone"))
        .args(["demo", "--workflow", "temporal", "--frames", "40", "--folder"])
        .arg(dir.path())
        .output()
        .expect("the demo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("proved    40 of 40 frames"), "{said}");
    assert!(said.contains("seam      error 0:"), "{said}");
    assert_eq!(clips::read(&dir.path().join("comps/sh010")).len(), 40);
    assert_eq!(clips::leftovers(&dir.path().join("comps")), Vec::<String>::new());
}
