//! Tables that a terminal may be too narrow for: then each row is a block of lines, because folded cells are hard to read.

use comfy_table::{ContentArrangement, Row, Table};

/// The table, or its rows as blocks if standard output is a terminal that is narrower.
pub fn fitted(table: Table) -> String {
    let width = table.width().map(usize::from);
    fit(table, width)
}

fn fit(mut table: Table, width: Option<usize>) -> String {
    table.set_content_arrangement(ContentArrangement::Disabled);
    let whole = table.to_string();
    let widest = whole.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if width.is_none_or(|width| widest <= width) { whole } else { blocks(&table) }
}

/// The first cell of each row, with the other cells below it, one per line.
fn blocks(table: &Table) -> String {
    let texts = |row: &Row| row.cell_iter().map(|cell| cell.content()).collect::<Vec<_>>();
    let heads = table.header().map(texts).unwrap_or_default();
    let name = heads.iter().skip(1).map(|head| head.chars().count()).max().unwrap_or(0);
    let block = |row: &Row| {
        let cells = texts(row);
        let mut lines = vec![cells.first().cloned().unwrap_or_default()];
        let rest = heads.iter().zip(&cells).skip(1).filter(|(_, cell)| !cell.is_empty());
        lines.extend(rest.map(|(head, cell)| format!("  {head:name$}  {cell}")));
        lines.join("\n")
    };
    table.row_iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_terminals_get_blocks() {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["run", "state", "prior prompt"]);
        table.add_row(["tiny-null-example-1", "done", "null-example"]);
        table.add_row(["b", "", "none"]);
        let wide = fit(table.clone(), Some(80));
        assert!(wide.starts_with('┌') && wide == fit(table.clone(), None));
        let narrow = "tiny-null-example-1\n  state         done\n  prior prompt  null-example\nb\n  prior prompt  none";
        assert_eq!(fit(table, Some(40)), narrow);
    }
}
