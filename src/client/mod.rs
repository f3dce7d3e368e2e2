//! Talks to a management API: one typed method per endpoint, events with resume.
