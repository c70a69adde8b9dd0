//! Tables, as kubectl prints them.
//!
//! State: rows. Invariants: a cell is one line without anything that would move a terminal's cursor, whatever the cluster says; colours change no width.

use crate::failure::one_line;

/// What a cell's colour says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Unclear,
    Bad,
}

impl Tone {
    /// Between the terminal's codes for its colour.
    pub(crate) fn paint(self, text: &str, colourful: bool) -> String {
        let code = match self {
            Self::Good => 32,
            Self::Unclear => 33,
            Self::Bad => 31,
            Self::Plain => return text.to_owned(),
        };
        if colourful { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Nothing is shown as a dash, so that columns can be counted.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        let text = one_line(text.as_ref());
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, tone: Tone::Plain }
    }

    pub(crate) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().copied().map(Cell::new).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.rows[0].len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, colourful: bool) -> String {
        let width_of = |cell: &Cell| cell.text.chars().count();
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| width_of(&row[column])).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                text.push_str(&cell.tone.paint(&cell.text, colourful));
                if at + 1 < row.len() {
                    text.extend(std::iter::repeat_n(' ', widths[at] - width_of(cell) + 3));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_colours_are_not_counted() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(vec!["a".into(), Cell::new("True").toned(Tone::Good)]);
        table.row(vec!["longer\n\u{1b}[2J".into(), "".into()]);
        assert_eq!(table.render(false), "NAME         READY\na            True\nlonger [2J   -\n");
        assert_eq!(table.render(true), "NAME         READY\na            \u{1b}[32mTrue\u{1b}[0m\nlonger [2J   -\n");
    }
}
