//! The repository names no place on a developer's machine.

use crate::{files, hold};

#[test]
fn no_file_names_a_place_outside_the_repository() {
    // Written apart, so this file does not name them.
    let places: Vec<String> =
        [["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"], ["../sh", "ared"], [":\\Us", "ers"]]
            .map(|parts| parts.concat())
            .into();
    let mut breaches = Vec::new();
    for file in files::below("") {
        for (number, line) in file.text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                breaches.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    hold("No file names a folder of a developer's machine. Use a path within the repository, or a URL.", &breaches);
}
