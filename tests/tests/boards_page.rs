//! `boards/BOARDS.md` is true as far as a test can tell: what it calls a scenario is one, no scenario of
//! a board is left out, and every board has its part.

use std::collections::BTreeSet;
use std::fs;

use package::Board;
use qemu::build::workspace;
use qemu::scenario;

fn page() -> String {
    fs::read_to_string(workspace().join("boards/BOARDS.md")).expect("the page is there")
}

/// What stands in backticks in the table of what was shown.
fn shown(page: &str) -> BTreeSet<String> {
    let (_, part) = page.split_once("## What is shown").expect("the page has this part");
    let table = part.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_scenario_that_the_page_names_exists() {
    let shown = shown(&page());
    assert!(shown.len() > 30, "{shown:?}");
    for name in shown {
        assert!(scenario::named(&name).is_ok(), "there is no scenario {name}");
    }
}

#[test]
fn every_scenario_of_a_board_is_on_the_page() {
    let shown = shown(&page());
    let of_a_board = |name: &str| {
        let boards = boards::ids().filter(|&board| board != Board::QEMU_VIRT);
        boards.map(|board| board.name()).any(|board| name.starts_with(board))
    };
    for scenario in scenario::all().filter(|scenario| of_a_board(scenario.name)) {
        assert!(shown.contains(scenario.name), "{} is not on the page", scenario.name);
    }
}

#[test]
fn every_board_has_its_part() {
    let page = page();
    for board in boards::ids() {
        let heading = format!("### `{}`", board.name());
        assert!(page.contains(&heading), "no part about {}", board.name());
    }
}
