//! Where in a resource something stands, as an operator reads it.

use std::borrow::Cow;
use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into a field.
    Field(Cow<'static, str>),
    /// To an item of a repeated field.
    Index(usize),
    /// To the value of a map's key.
    Key(String),
}

/// A path such as `listener "x" / filter_chains[0] / filters[1] / typed_config`.
///
/// The root is whatever the caller calls the resource; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath {
    root: String,
    steps: Vec<Step>,
}

impl FieldPath {
    /// The path of a resource itself.
    pub fn new(root: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            steps: Vec::new(),
        }
    }

    /// A path of ready steps.
    pub fn from_steps(root: impl Into<String>, steps: Vec<Step>) -> Self {
        Self {
            root: root.into(),
            steps,
        }
    }

    /// The path of a field below this one.
    #[must_use]
    pub fn field(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.with(Step::Field(name.into()))
    }

    /// The path of an item of the repeated field that this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The path of an item of the repeated field `name` below this one.
    #[must_use]
    pub fn item(&self, name: impl Into<Cow<'static, str>>, index: usize) -> Self {
        let mut path = self.field(name);
        path.steps.push(Step::Index(index));
        path
    }

    /// The path of a map's value.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// This path below another: the other's root and steps, then these steps.
    #[must_use]
    pub fn below(&self, parent: &Self) -> Self {
        let mut path = parent.clone();
        path.steps.extend(self.steps.iter().cloned());
        path
    }

    /// What the caller called the resource.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The steps from the resource.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn with(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.steps.push(step);
        path
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.root)?;
        let mut first = self.root.is_empty();
        for step in &self.steps {
            match step {
                Step::Field(name) if first => formatter.write_str(name)?,
                Step::Field(name) => write!(formatter, " / {name}")?,
                Step::Index(index) => write!(formatter, "[{index}]")?,
                Step::Key(key) => write!(formatter, "[{key:?}]")?,
            }
            first = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_an_operator_expects() {
        let path = FieldPath::new("listener \"x\"")
            .item("filter_chains", 0)
            .field("metadata")
            .key("a b");
        assert_eq!(
            path.to_string(),
            "listener \"x\" / filter_chains[0] / metadata[\"a b\"]"
        );
        assert_eq!(
            FieldPath::default()
                .field("admin")
                .field("address")
                .to_string(),
            "admin / address"
        );
    }
}
