//! Every link has a target.

use super::{page::Page, pages, root};

#[test]
fn every_internal_link_has_a_target() {
    let pages = pages();
    for page in &pages {
        for (line, target) in page.prose.iter().flat_map(|(line, text)| targets(text).map(move |to| (line, to))) {
            if target.starts_with("https://") {
                continue;
            }
            let place = format!("{}:{line}: {target}", page.name);
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let folder = root().join(&page.name).parent().unwrap().to_owned();
            let path = if path.is_empty() { root().join(&page.name) } else { folder.join(path) };
            let path = path.canonicalize().unwrap_or_else(|error| panic!("{place}: {error}"));
            if let Some(anchor) = anchor {
                assert!(Page::read(&path).anchors().iter().any(|known| known == anchor), "{place}: no such heading");
            }
        }
    }
}

/// Returns the targets of the links in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target)
}
