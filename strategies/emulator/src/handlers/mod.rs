//! The instructions, by topic.
