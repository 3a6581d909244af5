//! What a step does with a connection that stays open, as it is written.

use super::{
    Writer,
    step::{Entries, time},
    value::Value,
};
use crate::{
    channel::{Act, Arrival, Opening, Protocol, WITHIN_DEFAULT},
    journey::Step,
    template::Template,
};

impl Writer<'_> {
    /// What a step opens, or says; nothing for a plain request.
    pub(super) fn act(&mut self, step: &Step) -> Entries {
        match &step.act {
            Act::Request => Entries::new(),
            Act::Open(opening) => self.opening(opening, &step.path),
            Act::Say(saying) => vec![
                ("send".into(), self.templates(&saying.texts)),
                ("on".into(), Value::Text(saying.on.clone())),
            ],
        }
    }

    fn opening(&mut self, opening: &Opening, path: &Template) -> Entries {
        let key = match opening.protocol {
            Protocol::WebSocket => "websocket",
            Protocol::EventStream => "events",
        };
        let mut entries = vec![(key.to_owned(), self.template(path))];
        if opening.name != key {
            entries.push(("as".into(), Value::Text(opening.name.clone())));
        }
        if !opening.says.is_empty() {
            entries.push(("send".into(), self.templates(&opening.says)));
        }
        entries
    }

    /// What must arrive. Where it must is only said of a step that does not name a channel itself.
    pub(super) fn arrival(&mut self, act: &Act, arrival: &Arrival) -> Value {
        let is_said = match act {
            Act::Request => false,
            Act::Open(opening) => opening.name == arrival.on,
            Act::Say(saying) => saying.on == arrival.on,
        };
        let text = self.template(&arrival.text);
        let mut entries = vec![("text".to_owned(), text.clone())];
        if !is_said {
            entries.push(("on".into(), Value::Text(arrival.on.clone())));
        }
        if arrival.within != WITHIN_DEFAULT {
            entries.push(("within".into(), time(arrival.within)));
        }
        if entries.len() == 1 { text } else { Value::Table(entries) }
    }
}
