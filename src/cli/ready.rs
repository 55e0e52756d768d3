//! Whether a node takes events, for whoever watches over it: a container's health check, a script that waits for a start.

use serde_json::Value;

use super::client::Client;
use super::failure::{Code, Failure, Outcome};
use super::output::Output;

/// `klaxon ready`.
pub(super) async fn ready(output: &Output, client: &Client) -> Outcome {
    let answer = client.readiness().await?;
    let ready = answer.body["ready"].as_bool() == Some(true);
    if output.json && answer.body["ready"].is_boolean() {
        output.json(&answer.body)?;
        return if ready { Ok(()) } else { Err(Failure::new(Code::Later, "")) };
    }
    if ready {
        return Ok(output.line("ready")?);
    }
    let reasons: Vec<&str> = answer.body["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if reasons.is_empty() {
        // Nothing that a node says of its readiness: a problem, or somebody else answers there.
        return Err(answer.failure());
    }
    Err(Failure::new(Code::Later, format!("the node takes no events: {}", reasons.join(", "))))
}
