//! `lethe simulate`: one decision from a file, as a reader and as a program sees it.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::lethe::Place;

const HPA: &str = "\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { name: web }
spec:
  minReplicas: 2
  maxReplicas: 10
  metrics:
  - type: Resource
    resource: { name: cpu, target: { type: Utilization, averageUtilization: 50 } }
  - type: External
    external: { metric: { name: emails }, target: { type: AverageValue, averageValue: 10 } }
";

/// Three workers at 90 % of what they request.
fn case() -> Value {
    let worker = json!({ "phase": "Running", "ready": true, "readySince": 10, "started": 5, "cpu": 900, "cpuRequest": 1000 });
    json!({
        "spec": { "path": "hpa.yaml" },
        "now": 10_000.5,
        "replicas": 3,
        "instances": [worker, worker, worker],
        "external": { "emails": 12_000 },
    })
}

/// Puts the autoscaler and a case side by side, runs the verb, and gives exit status, answer and complaint.
fn simulate(case: &Value, flags: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let place = Place::new()?;
    fs::write(place.path().join("hpa.yaml"), HPA)?;
    let path = place.path().join("case.json");
    fs::write(&path, case.to_string())?;
    let mut arguments = vec!["simulate", path.to_str().context("UTF-8")?];
    arguments.extend(flags);
    let output = place.run(&arguments)?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[test]
fn a_program_gets_numbers() -> anyhow::Result<()> {
    let (status, answer, _) = simulate(&case(), &["--json"])?;
    let answer: Value = serde_json::from_str(&answer)?;
    // 90 % ÷ 50 % is 1.8; × 3 is 5.4. Four for each of three are a queue of twelve.
    let expected = json!({ "cpu": 90, "emails": 4_000 });
    ensure!(status == Some(0) && answer["desired"] == 6 && answer["utilization"] == expected, "{answer}");
    let reasons = answer["reasons"].as_array().context("reasons are a list")?;
    ensure!(
        reasons.iter().any(|reason| reason.as_str().is_some_and(|text| text.starts_with("cpu: 90 %"))),
        "{answer}"
    );
    Ok(())
}

#[test]
fn raw_is_the_metrics_alone() -> anyhow::Result<()> {
    let mut case = case();
    case["external"]["emails"] = json!(500_000);
    let (_, bounded, _) = simulate(&case, &["--json"])?;
    case["options"] = json!({ "raw": true });
    let (_, raw, _) = simulate(&case, &["--json"])?;
    let desired =
        |answer: &str| Ok::<_, anyhow::Error>(serde_json::from_str::<Value>(answer)?["desired"].clone());
    // Fifty are proposed, of which six are allowed at once.
    ensure!(desired(&bounded)? == 6 && desired(&raw)? == 50, "{bounded}\n{raw}");
    Ok(())
}

#[test]
fn a_reader_gets_sentences() -> anyhow::Result<()> {
    let mut case = case();
    case["optons"] = json!({});
    let (status, answer, _) = simulate(&case, &[])?;
    ensure!(
        status == Some(0) && answer.starts_with("6 workers\n  cpu: 90 % of what is requested (target 50 %)"),
        "{answer}"
    );
    ensure!(
        answer.ends_with("6 instead of 3\nnote: optons means nothing here; did you mean options?\n"),
        "{answer}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_decided_is_an_error_with_status_1() -> anyhow::Result<()> {
    let mut unmeasured = case();
    unmeasured["instances"] = json!([{ "cpu": null, "cpuRequest": 1000 }]);
    unmeasured["external"] = json!({});
    let mut idle = case();
    idle["instances"] = json!([{ "cpu": 1, "cpuRequest": 1000 }]);
    idle["external"] = json!({ "emails": "NaN" });
    let impossible = json!({ "spec": { "minReplicas": 3, "maxReplicas": 1 }, "replicas": 1 });
    let elsewhere = json!({ "spec": { "path": "nowhere.yaml" }, "replicas": 1 });
    let mut misspelt = unmeasured.clone();
    misspelt["instnces"] = json!([]);
    for (case, said) in [
        (unmeasured, "no metric works"),
        (misspelt, "did you mean instances?"),
        (idle, "external metric emails: what is given for it is \"NaN\""),
        (impossible, "spec.maxReplicas: must be no less than minReplicas"),
        (elsewhere, "nowhere.yaml"),
        (json!({ "replicas": 1 }), "missing field `spec`"),
    ] {
        let (status, answer, complaint) = simulate(&case, &["--json"])?;
        ensure!(complaint.is_empty(), "it is told once: {complaint}");
        let answer: Value = serde_json::from_str(&answer)?;
        let error = answer["error"].as_str().context("the answer is an error")?;
        ensure!(status == Some(1) && error.contains(said), "{status:?}: {answer}");
        let (status, answer, complaint) = simulate(&case, &[])?;
        ensure!(status == Some(1) && answer.is_empty() && complaint.contains(said), "{complaint}");
    }
    Ok(())
}

#[test]
fn a_trace_is_played_against_several_policies() -> anyhow::Result<()> {
    let place = Place::new()?;
    let [csv, svg, png] = ["load.csv", "load.svg", "load.png"].map(|name| place.path().join(name));
    fs::write(&csv, "time,rate\n0,140\n600,560\n1800,140\n5400,140\n")?;
    let [csv, svg, png] = [&csv, &svg, &png].map(|path| path.to_str().unwrap_or_default());
    let arguments =
        ["simulate", "--trace", csv, "--service-time", "50ms", "--startup", "2s", "--svg", svg, "--png", png];
    let with = |more: &[&'static str]| place.run(&[&arguments[..], more].concat());
    let output = with(&["--compare", "hpa,kpa,target,lethe", "--json"])?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.success() && answer["seconds"] == 9_000, "{answer}");
    let policies = answer["policies"].as_array().context("policies are a list")?;
    let names: Vec<_> = policies.iter().filter_map(|policy| policy["policy"].as_str()).collect();
    ensure!(names == ["hpa", "kpa", "target", "lethe"], "{answer}");
    let over = |at: usize| policies[at]["over"].as_f64().context("a number");
    ensure!(over(3)? < over(0)? && over(0)? < over(2)?, "sooner is better: {answer}");
    ensure!(fs::read_to_string(svg)?.ends_with("</svg>\n"));
    ensure!(fs::read(png)?.starts_with(b"\x89PNG\r\n\x1a\n"));
    let text = String::from_utf8(with(&["--compare", "lethe"])?.stdout)?;
    ensure!(
        text.starts_with("load ") && text.contains("WORKER-HOURS") && text.contains("the goal is 200 ms"),
        "{text}"
    );
    let refused = with(&["--goal", "20ms"])?;
    ensure!(refused.status.code() == Some(1) && String::from_utf8(refused.stderr)?.contains("--goal"));
    let hpa = place.path().join("hpa.yaml");
    fs::write(&hpa, HPA.lines().take(9).map(|line| format!("{line}\n")).collect::<String>())?;
    let hpa = hpa.to_str().context("UTF-8")?.to_owned();
    let played = |more: &[&str]| place.run(&[&arguments[..], &["--hpa", &hpa], more].concat());
    let text = String::from_utf8(played(&[])?.stdout)?;
    ensure!(text.lines().any(|line| line.starts_with("hpa ")), "{text}");
    let refused = played(&["--compare", "kpa, lethe"])?;
    ensure!(String::from_utf8(refused.stderr)?.contains("which --compare leaves out"));
    let refused = place.run(&["simulate", &hpa])?;
    ensure!(String::from_utf8(refused.stderr)?.contains("hpa.yaml is an autoscaler; write a case"));
    Ok(())
}
