//! One trace a job: the W3C `traceparent` of a span, as text, across gRPC metadata and messages.
//!
//! <https://www.w3.org/TR/trace-context/>: `00-<trace id>-<span id>-<flags>`. Must never fail: a
//! missing or broken context means an untraced job.

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The metadata key of the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The trace context of `span`; empty when it is not traced.
pub fn traceparent_of(span: &Span) -> String {
    let context = span.context();
    let span_context = context.span().span_context().clone();
    if !span_context.is_valid() {
        return String::new();
    }
    format!(
        "00-{}-{}-{:02x}",
        span_context.trace_id(),
        span_context.span_id(),
        span_context.trace_flags().to_u8()
    )
}

/// Makes `span` a child of the span that `traceparent` names. Does nothing with an unusable one.
pub fn set_parent(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // Fails only when no tracer is installed, and then there is nothing to join.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
}

/// Says in the trace that what the span stands for has failed, and why.
pub fn fail(span: &Span, why: &str) {
    span.set_status(Status::error(why.to_owned()));
}

/// Puts the current span's context into the metadata of a request.
pub fn inject(metadata: &mut MetadataMap) {
    if let Ok(value) = traceparent_of(&Span::current()).parse() {
        metadata.insert(TRACEPARENT, value);
    }
}

/// The trace context that a request brought, empty when it brought none.
pub fn extract(metadata: &MetadataMap) -> String {
    metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_traceparent_is_read_and_a_broken_one_is_not() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(good).expect("valid");
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(context.is_sampled());
        for broken in ["", "00-0-0-01", "nonsense", "00-zz-b7ad6b7169203331-01"] {
            assert!(parse(broken).is_none(), "{broken}");
        }
    }
}
