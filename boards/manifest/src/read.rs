//! Typed access to the tables of a TOML file. What does not fit is noted with its place, and reading
//! goes on.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::Section;
use crate::report::{At, Problem, Problems, Span, listed};
use crate::size;

/// A value of the file.
pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

/// A table of the file, and which keys it may have.
pub(crate) struct Table<'a> {
    table: &'a DeTable<'a>,
    section: &'static Section,
    problems: &'a Problems,
    /// Its header, or the whole of an inline table.
    pub(crate) span: Span,
}

impl<'a> Table<'a> {
    /// Looks at the keys; notes unknown ones.
    pub(crate) fn new(
        table: &'a DeTable<'a>,
        span: Span,
        section: &'static Section,
        problems: &'a Problems,
    ) -> Self {
        let known = section.names();
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let message = format!("unknown key `{name}` in {}", section.name);
            problems.add(Problem::new(&key.span(), message).suggest(name, &known));
        }
        Self { table, section, problems, span }
    }

    /// The value of a key that is there.
    fn value(&self, key: &str) -> Option<&'a Value<'a>> {
        assert!(self.section.names().contains(&key), "`{key}` is none of the section's keys");
        self.table.get(key)
    }

    /// Notes a key that must be there and is not.
    pub(crate) fn need<T>(&self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.value(key).is_none() {
            let message = format!("{} has no `{key}`", self.section.name);
            let problem = Problem::new(&self.span, message).label(format!("needs `{key}`"));
            self.problems.add(problem.absence());
        }
        value
    }

    /// Whether the file has the key, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(crate) fn text(&self, key: &str) -> Option<At<&'a str>> {
        let value = self.value(key)?;
        self.text_of(key, value)
    }

    fn text_of(&self, key: &str, value: &'a Value<'a>) -> Option<At<&'a str>> {
        match value.get_ref().as_str() {
            Some(text) => Some(At::new(text, value.span())),
            None => self.wrong(key, value, "a text"),
        }
    }

    pub(crate) fn bool(&self, key: &str) -> Option<At<bool>> {
        let value = self.value(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(At::new(flag, value.span())),
            None => self.wrong(key, value, "true or false"),
        }
    }

    /// A number of at most `largest`.
    pub(crate) fn integer(&self, key: &str, largest: u64) -> Option<At<u64>> {
        let value = self.value(key)?;
        self.integer_of(key, value, largest)
    }

    fn integer_of(&self, key: &str, value: &'a Value<'a>, largest: u64) -> Option<At<u64>> {
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong(key, value, "a whole number");
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix());
        match number.ok().filter(|&number| number <= largest) {
            Some(number) => Some(At::new(number, value.span())),
            None => {
                let message = format!("`{key}` must be a number from 0 to {largest}");
                self.problems.add(Problem::new(&value.span(), message));
                None
            }
        }
    }

    /// Bytes.
    pub(crate) fn size(&self, key: &str) -> Option<At<u64>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            return self.integer_of(key, value, u64::MAX);
        };
        match size::parse(text) {
            Some(bytes) => Some(At::new(bytes, value.span())),
            None => {
                let message = format!("`{key}` is not a size");
                let help = "write bytes as a number, or with a unit: \"64M\", \"4K\", \"1G\"";
                self.problems.add(Problem::new(&value.span(), message).help(help));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let text = self.text(key)?;
        self.word_of(key, &text, words)
    }

    fn word_of<T: Copy>(&self, key: &str, text: &At<&str>, words: &[(&str, T)]) -> Option<At<T>> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(text.with(*value));
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` is no value of `{key}`", text.value);
        self.problems.add(Problem::new(&text.span, message).suggest(text.value, &known));
        None
    }

    /// A list of some of a few words.
    pub(crate) fn words<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Vec<At<T>> {
        let texts = self.texts(key);
        texts.iter().filter_map(|text| self.word_of(key, text, words)).collect()
    }

    /// A list of texts, empty without one.
    pub(crate) fn texts(&self, key: &str) -> Vec<At<&'a str>> {
        let items = self.items(key, "a list of texts");
        items.iter().filter_map(|item| self.text_of(key, item)).collect()
    }

    /// A text or a list of texts.
    pub(crate) fn text_or_texts(&self, key: &str) -> Vec<At<&'a str>> {
        match self.value(key) {
            Some(value) if value.get_ref().is_str() => self.text(key).into_iter().collect(),
            _ => self.texts(key),
        }
    }

    /// A list of numbers, if there is one.
    pub(crate) fn integers(&self, key: &str, largest: u64) -> Option<At<Vec<At<u64>>>> {
        let span = self.value(key)?.span();
        let items = self.items(key, "a list of whole numbers");
        let numbers = items.iter().filter_map(|item| self.integer_of(key, item, largest));
        Some(At::new(numbers.collect(), span))
    }

    /// A table inside this one.
    pub(crate) fn table(&self, key: &str, section: &'static Section) -> Option<Table<'a>> {
        let value = self.value(key)?;
        self.table_of(key, value, section)
    }

    fn table_of(
        &self,
        key: &str,
        value: &'a Value<'a>,
        section: &'static Section,
    ) -> Option<Table<'a>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Table::new(table, value.span(), section, self.problems)),
            None => self.wrong(key, value, "a table"),
        }
    }

    /// The tables of a list.
    pub(crate) fn tables(&self, key: &str, section: &'static Section) -> Vec<Table<'a>> {
        let items = self.items(key, &format!("a list of tables, written `{}`", section.name));
        items.iter().filter_map(|item| self.table_of(key, item, section)).collect()
    }

    /// A table whose keys the user chooses.
    pub(crate) fn entries(&self, key: &str) -> Vec<(At<&'a str>, &'a Value<'a>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong::<()>(key, value, "a table");
            return Vec::new();
        };
        let name = |key: &'a Spanned<_>| At::new(AsRef::<str>::as_ref(key.get_ref()), key.span());
        table.iter().map(|(key, value)| (name(key), value)).collect()
    }

    fn items(&self, key: &str, wanted: &str) -> &'a [Value<'a>] {
        let Some(value) = self.value(key) else { return &[] };
        match value.get_ref().as_array() {
            Some(items) => items,
            None => self.wrong(key, value, wanted).unwrap_or(&[]),
        }
    }

    /// Notes a value of the wrong type.
    fn wrong<T>(&self, key: &str, value: &Value<'_>, wanted: &str) -> Option<T> {
        let message = format!("`{key}` must be {wanted}");
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problems.add(Problem::new(&value.span(), message).label(format!("this is {found}")));
        None
    }

    /// Notes something about a value of this table.
    pub(crate) fn note(&self, problem: Problem) {
        self.problems.add(problem);
    }

    /// Exactly one of these keys.
    pub(crate) fn one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        let given: Vec<_> = keys.iter().copied().filter(|key| self.has(key)).collect();
        if let [one] = given[..] {
            return Some(one);
        }
        let problem = match given[..] {
            [first, second, ..] => {
                let span = |key| self.value(key).map(Spanned::span);
                let message = format!("`{second}` contradicts `{first}`: there can be only one");
                let at = span(second).unwrap_or(self.span.clone());
                Problem::new(&at, message).also(span(first).as_ref(), "the other one")
            }
            _ => {
                let message = format!("{} needs one of {}", self.section.name, listed(keys));
                Problem::new(&self.span, message).absence()
            }
        };
        self.problems.add(problem);
        None
    }
}
