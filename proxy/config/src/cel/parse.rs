//! From text to an expression.

use outrigger_types::HeaderKey;

use super::attribute::{Attribute, Fields};
use super::{Function, Node, Operator};

/// How deep an expression may be nested.
const MAX_DEPTH: u32 = 32;
/// How many parts it may have.
const MAX_TOKENS: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Int(i64),
    Double(f64),
    /// An operator or a bracket.
    Mark(&'static str),
}

type Result<T> = std::result::Result<T, String>;

/// Those of two signs come first.
const MARKS: [&str; 22] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "(", ")", "[", "]", ",", ".", "+",
    "-", "*", "/", "%",
];

/// Operators by how closely they bind, loosely first.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::AtMost),
        (">", Operator::Greater),
        (">=", Operator::AtLeast),
        ("in", Operator::In),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[
        ("*", Operator::Times),
        ("/", Operator::Divided),
        ("%", Operator::Modulo),
    ],
];

pub(super) fn parse(text: &str) -> Result<Node> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        selected: false,
    };
    let node = parser.expression()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if found.len() >= MAX_TOKENS {
            return Err("the expression is too long".to_owned());
        }
        let (token, left) = match first {
            '"' | '\'' => quoted(rest, first)?,
            '0'..='9' => number(rest)?,
            'A'..='Z' | 'a'..='z' | '_' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                if rest[end..].starts_with(['"', '\'']) {
                    return Err(format!(
                        "texts of the form {}\"\" are not supported",
                        &rest[..end]
                    ));
                }
                (Token::Name(rest[..end].to_owned()), &rest[end..])
            }
            _ => {
                let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
                let mark = mark.ok_or_else(|| format!("unexpected '{first}'"))?;
                (Token::Mark(mark), &rest[mark.len()..])
            }
        };
        found.push(token);
        rest = left.trim_start();
    }
    Ok(found)
}

fn quoted(text: &str, quote: char) -> Result<(Token, &str)> {
    if text.starts_with(&quote.to_string().repeat(3)) {
        return Err("texts in three quotes are not supported".to_owned());
    }
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(match letters.next() {
                Some((_, same @ ('\\' | '"' | '\'' | '`' | '?'))) => same,
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, 'r')) => '\r',
                _ => return Err("such an escape is not supported".to_owned()),
            }),
            '\n' | '\r' => break,
            letter if letter == quote => return Ok((Token::Text(value), &text[at + 1..])),
            letter => value.push(letter),
        }
    }
    Err("a text does not end".to_owned())
}

fn number(text: &str) -> Result<(Token, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let mut end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    // The sign of an exponent is a part of it.
    if text[..end].ends_with(['e', 'E']) && text[end..].starts_with(['+', '-']) {
        let digits = &text[end + 1..];
        let is_digit = |c: char| c.is_ascii_digit();
        end += 1 + digits.find(|c| !is_digit(c)).unwrap_or(digits.len());
    }
    let (number, rest) = text.split_at(end);
    let is_double = number.contains(['.', 'e', 'E']) && !number.starts_with("0x");
    let token = match number.parse().map(Token::Int) {
        Ok(token) => Some(token),
        Err(_) if is_double => number.parse().map(Token::Double).ok(),
        Err(_) => None,
    };
    let token = token.ok_or_else(|| format!("the number {number} is not supported"))?;
    Ok((token, rest))
}

/// What stands to the left of a `.`, a `[` or a `(`.
enum Left {
    /// Names that are no attribute yet.
    Path(Vec<String>),
    Node(Node),
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// The last member was chosen by a `.`, as `has()` needs it.
    selected: bool,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token.ok_or_else(|| "the expression ends too early".to_owned())
    }

    /// Whether the next token is this one, which is then taken.
    fn takes(&mut self, mark: &str) -> bool {
        let found = match self.peek() {
            Some(Token::Mark(found)) => *found == mark,
            Some(Token::Name(found)) => found == mark,
            _ => false,
        };
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &str) -> Result<()> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(format!("\"{mark}\" is missing")),
        }
    }

    fn expression(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the expression is nested too deep".to_owned());
        }
        let condition = self.level(0)?;
        let node = if self.takes("?") {
            let yes = self.level(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            Node::Choice(condition.into(), yes.into(), no.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn level(&mut self, level: usize) -> Result<Node> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(mark, _)| self.takes(mark)) {
            if *operator == Operator::In
                && let Some(fields) = self.fields()
            {
                left = Node::IsField(left.into(), fields);
                continue;
            }
            let right = self.level(level + 1)?;
            left = Node::Binary(*operator, left.into(), right.into());
        }
        Ok(left)
    }

    /// Headers or trailers as a whole.
    fn fields(&mut self) -> Option<Fields> {
        let [Token::Name(message), Token::Mark("."), Token::Name(part)] =
            self.tokens.get(self.at..self.at + 3)?
        else {
            return None;
        };
        let fields = Fields::find(&[message.clone(), part.clone()])?;
        let after = self.tokens.get(self.at + 3);
        if matches!(after, Some(Token::Mark("." | "["))) {
            return None;
        }
        self.at += 3;
        Some(fields)
    }

    fn unary(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the expression is nested too deep".to_owned());
        }
        let node = if self.takes("!") {
            Node::Not(self.unary()?.into())
        } else if self.takes("-") {
            Node::Negative(self.unary()?.into())
        } else {
            let primary = self.primary()?;
            self.members(primary)?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Result<Left> {
        Ok(Left::Node(match self.next()? {
            Token::Int(n) => Node::Int(n),
            Token::Double(n) => Node::Double(n),
            Token::Text(text) => Node::Text(text.into()),
            Token::Mark("(") => {
                let node = self.expression()?;
                self.expect(")")?;
                node
            }
            Token::Mark("[") => Node::List(self.list()?),
            Token::Name(name) => match name.as_str() {
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                "null" => Node::Null,
                _ if self.takes("(") => self.global(&name)?,
                _ => return Ok(Left::Path(vec![name])),
            },
            Token::Mark(mark) => return Err(format!("unexpected \"{mark}\"")),
        }))
    }

    fn list(&mut self) -> Result<Vec<Node>> {
        let mut items = Vec::new();
        while !self.takes("]") {
            items.push(self.expression()?);
            if !self.takes(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(items)
    }

    /// A function that stands alone; its bracket is open.
    fn global(&mut self, name: &str) -> Result<Node> {
        let argument = self.expression()?;
        self.expect(")")?;
        match (name, argument) {
            ("has", node @ (Node::Attribute(_) | Node::Field(..))) if self.selected => {
                Ok(Node::Has(node.into()))
            }
            ("size", node) => Ok(Node::Call(Function::Size, node.into(), None)),
            _ => Err(format!("{name}() is not supported here")),
        }
    }

    /// What follows a value: `.name`, `["name"]`, `.function(…)`.
    fn members(&mut self, mut left: Left) -> Result<Node> {
        loop {
            left = if self.takes(".") {
                let Token::Name(name) = self.next()? else {
                    return Err("a name is missing after \".\"".to_owned());
                };
                match self.takes("(") {
                    true => Left::Node(self.call(left, &name)?),
                    false => {
                        self.selected = true;
                        member(left, name)?
                    }
                }
            } else if self.takes("[") {
                let Token::Text(name) = self.next()? else {
                    return Err("only a text is supported within []".to_owned());
                };
                self.expect("]")?;
                self.selected = false;
                member(left, name)?
            } else {
                return value(left);
            }
        }
    }

    /// A function of a value; its bracket is open.
    fn call(&mut self, target: Left, name: &str) -> Result<Node> {
        let target = value(target)?.into();
        let function = match name {
            "size" => Function::Size,
            "startsWith" => Function::StartsWith,
            "endsWith" => Function::EndsWith,
            "contains" => Function::Contains,
            _ => return Err(format!("{name}() is not supported")),
        };
        let argument = match function {
            Function::Size => None,
            _ => Some(self.expression()?.into()),
        };
        self.expect(")")?;
        Ok(Node::Call(function, target, argument))
    }
}

fn member(left: Left, name: String) -> Result<Left> {
    let Left::Path(mut path) = left else {
        return Err(format!("a value has no \"{name}\""));
    };
    if let Some(fields) = Fields::find(&path) {
        let key = HeaderKey::parse(&name);
        let key = key.ok_or_else(|| format!("\"{name}\" is no name of a header"))?;
        return Ok(Left::Node(Node::Field(fields, key)));
    }
    path.push(name);
    Ok(Left::Path(path))
}

fn value(left: Left) -> Result<Node> {
    match left {
        Left::Node(node) => Ok(node),
        Left::Path(path) => {
            let path = path.join(".");
            let found = Attribute::find(&path);
            let found = found.ok_or_else(|| format!("the attribute {path} is not supported"))?;
            Ok(Node::Attribute(found))
        }
    }
}
