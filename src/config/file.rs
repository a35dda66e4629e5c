//! A configuration as it is written: TOML files read into one tree that remembers the file and the
//! line of every key, drop-ins laid over it, and a reader that takes keys out of it.
//!
//! Deserializing with serde would stop at the first fault and name no line after drop-ins are merged,
//! so the tree is walked by hand: every fault is collected, and what nobody asked for is unknown.

use super::value::secret_file;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Name of a pipeline that is given none, and of the only one in most files.
pub const DEFAULT_PIPELINE: &str = "main";

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as its path was given.
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One thing that is wrong, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Place,
    /// The key with its tables, such as `mqtt.url`; empty where the file itself is meant.
    pub key: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => write!(f, "{}: {}", self.at, self.text),
            false => write!(f, "{}: {}: {}", self.at, self.key, self.text),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The line of its key, or its own inside a list.
    pub at: Place,
    /// The value.
    pub value: Value,
}

/// What TOML can hold, as far as a configuration needs it.
#[derive(Debug, Clone)]
pub enum Value {
    /// `"text"`
    Text(String),
    /// `5`
    Integer(i64),
    /// `0.5`
    Float(f64),
    /// `true`
    Bool(bool),
    /// A date or time; no key takes one.
    Date,
    /// `[1, 2]`, or an array of tables
    List(Vec<Node>),
    /// `[table]` or `{ inline = "table" }`
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// The kind in the words of TOML's users.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Bool(_) => "true or false",
            Value::Date => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Reads one file's text into a table; every syntax fault of it at once.
pub fn parse(file: &Arc<Path>, text: &str) -> Result<BTreeMap<String, Node>, Vec<Fault>> {
    let lines = Lines::of(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|error| Fault {
            at: lines.place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            text: format!("not TOML: {}", error.message().replace('\n', ", ")),
        })
        .collect();
    let tree = convert_table(table.into_inner(), &lines, "", &mut faults);
    if faults.is_empty() {
        twice(&tree, &mut faults);
    }
    faults.sort_by(|a, b| a.at.cmp(&b.at));
    if faults.is_empty() { Ok(tree) } else { Err(faults) }
}

/// Line numbers of a text by byte offset.
struct Lines<'a> {
    file: &'a Arc<Path>,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a Arc<Path>, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        Place { file: self.file.clone(), line }
    }
}

fn convert_table(
    table: DeTable<'_>,
    lines: &Lines<'_>,
    path: &str,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, Node> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let at = lines.place(key.span().start);
        let key = key.into_inner().into_owned();
        let value = convert(value.into_inner(), lines, &join(path, &key), &at, faults);
        entries.insert(key, Node { at, value });
    }
    entries
}

fn convert(value: DeValue<'_>, lines: &Lines<'_>, path: &str, at: &Place, faults: &mut Vec<Fault>) -> Value {
    let mut too_large = || {
        faults.push(Fault { at: at.clone(), key: path.to_owned(), text: "the number is too large".into() });
        Value::Integer(0)
    };
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => too_large(),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => too_large(),
        },
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let at = lines.place(item.span().start);
                    let value = convert(item.into_inner(), lines, path, &at, faults);
                    Node { at, value }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, lines, path, faults)),
    }
}

/// Two pipelines of one name in one file: a drop-in could not tell which one it changes.
fn twice(tree: &BTreeMap<String, Node>, faults: &mut Vec<Fault>) {
    let Some(Node { value: Value::List(items), .. }) = tree.get("pipeline") else { return };
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for item in items {
        let name = pipeline_name(item);
        match seen.get(name) {
            Some(first) => faults.push(Fault {
                at: item.at.clone(),
                key: "pipeline.name".into(),
                text: format!(
                    "\"{name}\" is already the pipeline at line {}; give each pipeline a name of its own",
                    first.line
                ),
            }),
            None => drop(seen.insert(name, &item.at)),
        }
    }
}

fn pipeline_name(node: &Node) -> &str {
    match &node.value {
        Value::Table(entries) => text_of(entries, "name").unwrap_or(DEFAULT_PIPELINE),
        _ => DEFAULT_PIPELINE,
    }
}

fn text_of<'t>(entries: &'t BTreeMap<String, Node>, key: &str) -> Option<&'t str> {
    match entries.get(key) {
        Some(Node { value: Value::Text(text), .. }) => Some(text),
        _ => None,
    }
}

/// Lays `over` over `base`: tables key by key, `[[pipeline]]` by name, everything else replaced.
pub fn merge(base: &mut BTreeMap<String, Node>, over: BTreeMap<String, Node>) {
    for (key, node) in over {
        let Some(below) = base.get_mut(&key) else {
            base.insert(key, node);
            continue;
        };
        match (&mut below.value, node) {
            (Value::Table(below), Node { value: Value::Table(over), .. }) if same_kind(below, &over) => {
                merge(below, over);
            }
            (Value::List(below), Node { value: Value::List(over), .. }) if key == "pipeline" => {
                merge_pipelines(below, over);
            }
            (_, node) => *below = node,
        }
    }
}

/// A table whose `kind` changes is another thing: keys of the old kind make no sense in it.
fn same_kind(below: &BTreeMap<String, Node>, over: &BTreeMap<String, Node>) -> bool {
    match (text_of(below, "kind"), text_of(over, "kind")) {
        (Some(below), Some(over)) => below == over,
        _ => true,
    }
}

fn merge_pipelines(below: &mut Vec<Node>, over: Vec<Node>) {
    for node in over {
        let same = below.iter_mut().find(|known| pipeline_name(known) == pipeline_name(&node));
        match (same, node) {
            (Some(Node { value: Value::Table(below), .. }), Node { value: Value::Table(over), .. }) => {
                merge(below, over)
            }
            (_, node) => below.push(node),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The faults found so far; shared by all sections of one reading.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes one.
    pub fn add(&self, at: &Place, key: impl Into<String>, text: impl Into<String>) {
        self.0.borrow_mut().push(Fault { at: at.clone(), key: key.into(), text: text.into() });
    }

    /// All of them, in the order of files and lines.
    pub fn into_sorted(self) -> Vec<Fault> {
        let mut faults = self.0.into_inner();
        faults.sort_by(|a, b| a.at.cmp(&b.at));
        faults
    }
}

/// One table under reading: keys are taken out of it, and [`Section::finish`] reports what is left.
#[derive(Debug)]
pub struct Section<'f> {
    /// Where the table starts.
    pub at: Place,
    path: String,
    entries: BTreeMap<String, Node>,
    asked: Vec<&'static str>,
    faults: &'f Faults,
    /// Where systemd puts the unit's credentials.
    credentials: Option<&'f Path>,
}

impl<'f> Section<'f> {
    /// The whole file, with the folder of the unit's credentials.
    pub fn root(
        file: &Arc<Path>,
        entries: BTreeMap<String, Node>,
        faults: &'f Faults,
        credentials: Option<&'f Path>,
    ) -> Self {
        let at = Place { file: file.clone(), line: 1 };
        Self { at, path: String::new(), entries, asked: Vec::new(), faults, credentials }
    }

    /// The full name of a key of this table.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes a fault of a key.
    pub fn fault(&self, at: &Place, key: &str, text: impl Into<String>) {
        self.faults.add(at, self.key(key), text);
    }

    /// Takes a key's value out, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        self.entries.remove(key)
    }

    /// A key that may be absent, read by `read`, which says what is wrong and the remedy.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.take(key)?;
        read(&node).map_err(|text| self.fault(&node.at, key, text)).ok()
    }

    /// A key that names a file with a secret: a path, or `credential:NAME`.
    pub fn secret_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let credentials = self.credentials;
        self.optional(key, |node| secret_file(node, credentials))
    }

    /// A key that names several such files.
    pub fn secret_files(&mut self, key: &'static str, max: usize) -> Vec<PathBuf> {
        let credentials = self.credentials;
        self.list(key, max, |node| secret_file(node, credentials)).unwrap_or_default()
    }

    /// A key with a default, which also stands in for a faulty value, so that reading can go on.
    pub fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// A key that must be there. `None` with the fault noted.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        if !self.entries.contains_key(key) {
            self.asked.push(key);
            self.fault(&self.at, key, format!("is missing; add {key} = {example}"));
            return None;
        }
        self.optional(key, read)
    }

    /// True where the list `new` stands under a name that it does not have here: that is one fault, which
    /// names `new`, and no reason to call `new` missing too.
    pub fn misnamed(&mut self, old: &str, new: &'static str) -> bool {
        let Some(node) = self.entries.remove(old) else { return false };
        self.take(new);
        self.fault(&node.at, old, format!("is called {new}; write {new} = […]"));
        true
    }

    /// A list, each item read by `read`; `None` when the key is absent. Faulty items are left out.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let Value::List(items) = node.value else {
            self.fault(&node.at, key, format!("expected a list, found {}; write [ … ]", node.value.kind()));
            return None;
        };
        if items.len() > max {
            self.fault(&node.at, key, format!("has {} items; at most {max} are possible", items.len()));
        }
        let mut read_items = Vec::new();
        for item in items.iter().take(max) {
            match read(item) {
                Ok(value) => read_items.push(value),
                Err(text) => self.fault(&item.at, key, text),
            }
        }
        Some(read_items)
    }

    /// A table below this one; `None` when absent.
    pub fn table(&mut self, key: &'static str) -> Option<Section<'f>> {
        let node = self.take(key)?;
        self.section_of(key, node)
    }

    /// A table below this one; an empty one when absent, so that every key gets its default.
    pub fn table_or_empty(&mut self, key: &'static str) -> Section<'f> {
        let at = self.at.clone();
        self.table(key).unwrap_or_else(|| self.below(key, at, BTreeMap::new()))
    }

    /// The tables of a `[[key]]`; empty when absent.
    pub fn tables(&mut self, key: &'static str, max: usize) -> Vec<Section<'f>> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(items) = node.value else {
            self.fault(
                &node.at,
                key,
                format!("expected [[{key}]] with two brackets, as there can be several"),
            );
            return Vec::new();
        };
        if items.len() > max {
            self.fault(&node.at, key, format!("there are {}; at most {max} are possible", items.len()));
        }
        items.into_iter().take(max).filter_map(|item| self.section_of(key, item)).collect()
    }

    fn section_of(&self, key: &str, node: Node) -> Option<Section<'f>> {
        match node.value {
            Value::Table(entries) => Some(self.below(key, node.at, entries)),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Date
            | Value::List(_) => {
                self.fault(
                    &node.at,
                    key,
                    format!("expected a table, found {}; write [{}]", node.value.kind(), self.key(key)),
                );
                None
            }
        }
    }

    fn below(&self, key: &str, at: Place, entries: BTreeMap<String, Node>) -> Section<'f> {
        Section {
            at,
            path: self.key(key),
            entries,
            asked: Vec::new(),
            faults: self.faults,
            credentials: self.credentials,
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        for (key, node) in &self.entries {
            self.fault(&node.at, key, unknown(key, &self.asked));
        }
    }
}

/// What to say of an unknown key.
fn unknown(key: &str, known: &[&'static str]) -> String {
    const SECRETS: [&str; 7] =
        ["password", "passwd", "secret", "token", "private_key", "api_key", "client_secret"];
    if SECRETS.contains(&key) {
        return "a secret does not belong in this file; write it to a file only the agent can read, and name \
                that file (for the broker: mqtt.password_file, for the repository: repository.token_file)"
            .into();
    }
    let close = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match close {
        Some((_, close)) => format!("unknown key; did you mean {close}?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}
