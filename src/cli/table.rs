//! Tables that fit the terminal: columns are as wide as what stands in them; where there is no room for all, the columns of
//! free text give way and are cut.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::output::{Output, Style, printable};

/// Between two columns.
const GAP: &str = "  ";
/// The narrowest a column is made by cutting.
const CUT_WIDTH_MIN: usize = 8;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    right: bool,
    /// Whether it may be cut.
    flexible: bool,
}

impl Column {
    /// Stands whole, to the left.
    pub(super) const fn left(title: &'static str) -> Self {
        Self { title, right: false, flexible: false }
    }

    /// Stands whole, to the right: numbers.
    pub(super) const fn right(title: &'static str) -> Self {
        Self { title, right: true, flexible: false }
    }

    /// May be cut: free text.
    pub(super) const fn text(title: &'static str) -> Self {
        Self { title, right: false, flexible: true }
    }
}

/// One cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell of a style.
    pub(super) fn new(style: Style, text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), style }
    }

    /// What stands in it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How.
    pub(super) fn style(&self) -> Style {
        self.style
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Style::Plain, text)
    }
}

/// Rows under titles.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows.
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more row, with a cell for every column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, titles first.
    pub(super) fn render(&self, output: &Output) -> String {
        let widths = self.widths(output.width());
        let mut text = String::new();
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::new(Style::Bold, column.title)).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            text.push_str(&self.line(output, row, &widths));
            text.push('\n');
        }
        text
    }

    fn line(&self, output: &Output, row: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, ((cell, column), width)) in row.iter().zip(&self.columns).zip(widths).enumerate() {
            if index > 0 {
                line.push_str(GAP);
            }
            let shown = cut(&cell.text, *width);
            let padding = " ".repeat(width.saturating_sub(shown.width()));
            let painted = output.paint(cell.style, &shown);
            match (column.right, index + 1 == row.len()) {
                (true, _) => line.extend([padding, painted]),
                (false, true) => line.push_str(&painted),
                (false, false) => line.extend([painted, padding]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    fn widths(&self, room: Option<usize>) -> Vec<usize> {
        let widest = |index: usize| self.rows.iter().map(|row| row[index].text.width()).max().unwrap_or(0);
        let mut widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(index, column)| widest(index).max(column.title.width())).collect();
        let Some(room) = room else { return widths };
        let gaps = GAP.len() * self.columns.len().saturating_sub(1);
        loop {
            let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
            // The widest text gives way first, down to the next widest, so that no short one is cut for the sake of a long one.
            let flexible = |index: &usize| self.columns[*index].flexible && widths[*index] > CUT_WIDTH_MIN;
            let Some(index) = (0..widths.len()).filter(flexible).max_by_key(|index| widths[*index]) else { return widths };
            if excess == 0 {
                return widths;
            }
            widths[index] -= 1;
        }
    }
}

/// At most `width` columns of the text; what is cut ends in `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

/// The text in lines of at most `width` columns, broken at spaces where there are some.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_and_cuts_the_longest_text_first() {
        let mut table =
            Table::new(&[Column::left("ID"), Column::right("COUNT"), Column::text("RESOURCE"), Column::text("TEXT")]);
        table.row(vec![
            "1a2b".into(),
            "7".into(),
            "host=web-1.filesystem=/var".into(),
            "the disk is 97 % full, and it goes on".into(),
        ]);
        table.row(vec!["9f".into(), "12345".into(), "host=ü".into(), "ok".into()]);
        let lines = |width| {
            let text = table.render(&Output::plain(width));
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(lines(60).iter().all(|line| line.width() <= 60), "{:#?}", lines(60));
        assert_eq!(lines(60)[0], "ID    COUNT  RESOURCE                 TEXT");
        assert_eq!(lines(60)[1], "1a2b      7  host=web-1.filesystem=…  the disk is 97 % full…");
        assert_eq!(lines(200)[1], "1a2b      7  host=web-1.filesystem=/var  the disk is 97 % full, and it goes on");
        assert_eq!(lines(200)[2], "9f    12345  host=ü                      ok");
    }

    #[test]
    fn what_came_from_outside_cannot_drive_the_terminal() {
        let mut table = Table::new(&[Column::text("TEXT")]);
        table.row(vec!["a\u{1b}[2Jb\nc".into()]);
        assert_eq!(table.render(&Output::plain(80)).lines().nth(1), Some("a [2Jb c"));
    }

    #[test]
    fn text_wraps_at_spaces_and_keeps_its_lines() {
        assert_eq!(wrap("one two three\nfour", 8), ["one two", "three", "four"]);
        assert_eq!(wrap("longer-than-that x", 8), ["longer-than-that", "x"]);
    }
}
