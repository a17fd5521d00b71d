//! One route: what it is for, who may use it, and what goes in and comes out.

use std::time::Duration;

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::access::Permission;

/// A route in the making.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// With names in braces where an id stands.
    pub(crate) path: &'static str,
    /// What its caller needs; `None` for a route that is everybody's.
    pub(crate) permission: Option<Permission>,
    /// One line for the document.
    pub(crate) summary: &'static str,
    /// The status of an answer that is no refusal.
    pub(crate) status: u16,
    /// Whether its body may be left out, which is as if it had no members.
    pub(crate) body_may_be_missing: bool,
    /// Most bytes of its body.
    pub(crate) body_max: usize,
    /// How long its body may take to come.
    pub(crate) body_within: Duration,
    /// How long the leader's answer may take, where it is passed on.
    pub(crate) answer_within: Duration,
    /// Whether any node can do it, and not the leader alone.
    pub(crate) anywhere: bool,
    /// Whether it takes in jobs, which come once however often they are asked for with one request id.
    pub(crate) is_submission: bool,
    /// The kind of its answer.
    pub(crate) kind: &'static str,
}

/// A body of settings and a few words.
const BODY_BYTES: usize = 64 << 10;

/// A body comes within this time, or its sender does not mean it.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(30);

/// What a change may take: a submission waits for the disk or the store.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// JSON, as nearly every route answers.
pub(crate) const JSON: &str = "application/json";

/// Server-sent events.
pub(crate) const EVENTS: &str = "text/event-stream";

impl Route {
    const fn new(
        method: Method,
        path: &'static str,
        permission: Option<Permission>,
        summary: &'static str,
    ) -> Self {
        Self {
            anywhere: !matches!(method, Method::POST),
            is_submission: false,
            method,
            path,
            permission,
            summary,
            status: 200,
            body_may_be_missing: false,
            body_max: BODY_BYTES,
            body_within: BODY_WITHIN,
            answer_within: ANSWER_WITHIN,
            kind: JSON,
        }
    }

    pub(crate) const fn get(
        path: &'static str,
        permission: Permission,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::GET, path, Some(permission), summary)
    }

    pub(crate) const fn post(
        path: &'static str,
        permission: Permission,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::POST, path, Some(permission), summary)
    }

    /// A route that everybody may use, since it is how one becomes somebody, or tells nothing of anybody.
    pub(crate) const fn open(method: Method, path: &'static str, summary: &'static str) -> Self {
        Self::new(method, path, None, summary)
    }

    /// A route that only reads, though it is asked with a body.
    pub(crate) const fn anywhere(mut self) -> Self {
        self.anywhere = true;
        self
    }

    /// A route that takes in jobs.
    pub(crate) const fn submission(mut self) -> Self {
        self.is_submission = true;
        self
    }

    pub(crate) const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) const fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// One whose body may be left out.
    pub(crate) const fn body_optional(mut self) -> Self {
        self.body_may_be_missing = true;
        self
    }

    /// One whose body is long.
    pub(crate) const fn body_within(mut self, time: Duration) -> Self {
        self.body_within = time;
        self
    }

    /// One that takes long to do.
    pub(crate) const fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    pub(crate) const fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }
}

/// What has a shape in the document, or none.
pub(crate) trait Shape {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
}

/// No body, or no parameters: whatever is there is not looked at.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Nothing {}

impl Shape for Nothing {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
}

impl<T: JsonSchema> Shape for T {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
}
