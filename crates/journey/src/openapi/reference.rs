//! References within a document, as `{ "$ref": "#/components/schemas/Item" }`.

use serde_json::Value;

use crate::address;

/// The most references that lead from one to the next.
const HOPS_MAX: usize = 16;

/// Follows references within one document.
#[derive(Clone, Copy)]
pub(super) struct References<'d> {
    pub(super) root: &'d Value,
}

impl<'d> References<'d> {
    /// What `value` stands for, which is itself unless it is a reference.
    ///
    /// # Errors
    /// Why the reference leads nowhere, in a sentence.
    pub(super) fn follow(self, value: &'d Value) -> Result<&'d Value, String> {
        let mut value = value;
        for _ in 0..HOPS_MAX {
            let Some(target) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let Some(pointer) = target.strip_prefix('#') else {
                return Err(format!("{target:?} is in another document: put all into one"));
            };
            let pointer = address::decode(pointer);
            value =
                self.root.pointer(&pointer).ok_or_else(|| format!("{target:?} is not in the document"))?;
        }
        Err("its reference leads back to itself".into())
    }
}
