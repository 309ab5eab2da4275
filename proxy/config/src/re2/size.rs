//! How large RE2's program for an expression would be: it refuses those over a limit.

/// Something that a repetition can follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Atom {
    /// Where it begins in the output.
    pub(super) start: usize,
    pub(super) size: u64,
    /// The product of the counts within.
    pub(super) repeat: u64,
}

/// The inside of a group.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) atoms: Vec<Atom>,
    /// Where the alternative under way begins.
    pub(super) branch: usize,
    pub(super) previous: Option<(usize, usize)>,
    pub(super) size: u64,
    pub(super) repeat: u64,
}

impl Level {
    pub(super) fn new(start: usize) -> Self {
        Self {
            atoms: Vec::new(),
            branch: start,
            previous: None,
            size: 0,
            repeat: 1,
        }
    }

    /// Ends the alternative under way. RE2 shares what neighbours begin with.
    pub(super) fn end_branch(&mut self, out: &str) {
        let size = self
            .atoms
            .iter()
            .fold(0_u64, |n, a| n.saturating_add(a.size));
        let mut shared = 0;
        if let Some((start, end)) = self.previous {
            shared = shared_literals(&out[start..end], &out[self.branch..]);
            if shared == 0 && size == 1 {
                shared = 1;
            }
        }
        self.size = self.size.saturating_add(size.saturating_sub(shared));
        let repeat = self.atoms.iter().map(|a| a.repeat).max();
        self.repeat = self.repeat.max(repeat.unwrap_or(1));
        self.previous = Some((self.branch, out.len()));
        self.atoms.clear();
    }

    pub(super) fn close(mut self, out: &str) -> Self {
        self.end_branch(out);
        self
    }
}

/// Literals (`\xNN`) that two pieces of output begin with.
fn shared_literals(one: &str, other: &str) -> u64 {
    let (one, other) = (one.as_bytes().chunks(4), other.as_bytes().chunks(4));
    one.zip(other)
        .take_while(|(a, b)| a == b && a.starts_with(b"\\x"))
        .count() as u64
}

/// Instructions of a repetition: RE2 writes its argument out, with one to skip
/// or repeat it.
pub(super) fn repeated_size(size: u64, min: u64, max: Option<u64>) -> u64 {
    match max {
        None => size.saturating_mul(min.max(1)).saturating_add(1),
        Some(max) => {
            let optional = max.saturating_sub(min);
            size.saturating_mul(max).saturating_add(optional)
        }
    }
}
