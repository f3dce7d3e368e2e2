//! The terminal: one file per command; `ui` is the only writer.
