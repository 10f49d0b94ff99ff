//! What is wrong with a manifest, shown at its place in the file.
//!
//! All checks add to one list, so that a person can mend everything before the next try.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Bytes of the file.
pub(crate) type Span = Range<usize>;

/// A value and where the file says it.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> At<T> {
    pub(crate) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// Another value at the same place.
    pub(crate) fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

/// One mistake.
#[derive(Clone, Debug)]
pub struct Problem {
    span: Option<Span>,
    message: String,
    label: String,
    also: Vec<(Span, String)>,
    help: Option<String>,
    absence: bool,
}

impl Problem {
    /// A mistake at a place. `message` says what is wrong, by itself.
    pub(crate) fn new(span: &Span, message: impl Into<String>) -> Self {
        let (message, span) = (message.into(), Some(span.clone()));
        Self { span, message, label: String::new(), also: Vec::new(), help: None, absence: false }
    }

    /// What stands beside the mark.
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn also(mut self, span: Option<&Span>, text: impl Into<String>) -> Self {
        self.also.extend(span.map(|span| (span.clone(), text.into())));
        self
    }

    /// What to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// That something is missing, not wrong.
    pub(crate) fn absence(self) -> Self {
        Self { absence: true, ..self }
    }

    pub(crate) fn is_absence(&self) -> bool {
        self.absence
    }

    /// Where the mistake begins.
    pub(crate) fn start(&self) -> Option<usize> {
        self.span.as_ref().map(|span| span.start)
    }

    /// `did you mean …?`, if one of the known words is close to `word`; else the known words.
    pub(crate) fn suggest(self, word: &str, known: &[&str]) -> Self {
        match closest(word, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self.help(format!("known are {}", listed(known))),
        }
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if the tool knows.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// Where checks leave what they find.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(crate) fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All of them, in the order of the file.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        let mut all = self.0.into_inner();
        all.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        all
    }
}

/// Everything that is wrong with one manifest. Its `Display` is for a terminal without colours.
#[derive(Clone, Debug)]
pub struct Report {
    path: PathBuf,
    source: String,
    problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(path: &Path, source: &str, problems: Problems) -> Self {
        Self { path: path.into(), source: source.into(), problems: problems.into_vec() }
    }

    /// A manifest that cannot be read at all.
    pub(crate) fn unreadable(path: &Path, reason: impl fmt::Display) -> Self {
        let message = format!("cannot read {}: {reason}", path.display());
        let problem = Problem { span: None, ..Problem::new(&(0..0), message) };
        Self { path: path.into(), source: String::new(), problems: vec![problem] }
    }

    /// The mistakes, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of a mistake, both from 1.
    pub fn place(&self, problem: &Problem) -> Option<(usize, usize)> {
        let before = self.source.get(..problem.span.as_ref()?.start)?;
        let line = before.rsplit('\n').next().unwrap_or("");
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    }

    /// The text for a person, with colours if the terminal has them.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let path = self.path.display().to_string();
        let mut text: String = self
            .problems
            .iter()
            .map(|problem| renderer.render(&self.groups(problem, &path)) + "\n\n")
            .collect();
        let count = self.problems.len();
        let errors = if count == 1 { "1 error".into() } else { format!("{count} errors") };
        text.push_str(&format!("{errors} in {path}"));
        text
    }

    fn groups<'a>(&'a self, problem: &'a Problem, path: &'a str) -> Vec<Group<'a>> {
        let title = Level::ERROR.primary_title(&problem.message);
        let mut group = match &problem.span {
            None => Group::with_title(title),
            Some(span) => {
                let primary = AnnotationKind::Primary.span(self.inside(span)).label(&problem.label);
                let others = problem.also.iter().map(|(span, text)| {
                    AnnotationKind::Context.span(self.inside(span)).label(text)
                });
                let snippet = Snippet::source(&self.source).path(path).annotation(primary);
                title.element(snippet.annotations(others))
            }
        };
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        vec![group]
    }

    /// The span, moved to whole characters of the file: a parser's mistake must not become ours.
    fn inside(&self, span: &Span) -> Span {
        let start = self.source.floor_char_boundary(span.start.min(self.source.len()));
        let end = self.source.ceil_char_boundary(span.end.clamp(start, self.source.len()));
        start..end
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// The known word that `word` is most likely meant to be.
pub(crate) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let distance = |&other: &&str| strsim::damerau_levenshtein(&word, &other.replace('-', "_"));
    let nearest = known.iter().copied().min_by_key(distance)?;
    // A third of the letters may be wrong, as cargo and rustc allow.
    (distance(&nearest) <= word.chars().count().max(3) / 3).then_some(nearest)
}

/// "`a`, `b` and `c`".
pub(crate) fn listed(words: &[&str]) -> String {
    match words {
        [] => "none".into(),
        [one] => format!("`{one}`"),
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", most.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(source: &str, problem: Problem) -> Report {
        let problems = Problems::default();
        problems.add(problem);
        Report::new(Path::new("a.toml"), source, problems)
    }

    #[test]
    fn a_mistake_is_shown_with_file_line_column_mark_and_advice() {
        let problem = Problem::new(&(7..13), "unknown key").suggest("mempry", &["memory", "name"]);
        let shown = report("[[vm]]\nmempry = 1\n", problem).to_string();
        for part in
            ["error: unknown key", "a.toml:2:1", "mempry = 1", "^^^^^^", "did you mean `memory`?"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(shown.ends_with("1 error in a.toml"), "{shown}");
    }

    #[test]
    fn lines_and_columns_count_characters() {
        let report = report("é\nüx = 1", Problem::new(&(5..6), "x"));
        assert_eq!(report.place(&report.problems()[0]), Some((2, 2)));
    }

    #[test]
    fn a_place_outside_of_the_file_or_inside_a_character_is_no_reason_to_panic() {
        for span in [0..1, 1..2, 1..100, 50..60, 0..0] {
            let problem = Problem::new(&span, "x").also(Some(&(1..1)), "y");
            assert!(report("é", problem).to_string().contains("error: x"));
        }
    }

    #[test]
    fn far_words_are_answered_with_all_known_ones() {
        let problem = Problem::new(&(0..1), "x").suggest("zebra", &["keep", "reset", "restart"]);
        assert_eq!(problem.advice(), Some("known are `keep`, `reset` and `restart`"));
        assert_eq!(closest("when_asked", &["when-asked", "always"]), Some("when-asked"));
    }
}
