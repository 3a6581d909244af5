//! What a person did before `lethe record` is enough to prove a service with.

use rustix::process::Signal;

use crate::{
    lab::{Lab, examples},
    recorder::Recorder,
    visitor::Visitor,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_memory_is_found() -> anyhow::Result<()> {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let path = lab.path().join("recorded.toml");
    let output = path.to_str().unwrap();
    let recorder = Recorder::start(&folder, &["-o", output, "--", "python3", "app.py"])?;
    let mut visitor = Visitor::new(recorder.address);
    visitor.get("/").await?;
    assert_eq!(visitor.post("/sign-in", &[("name", "ada")]).await?.location(), "/me");
    assert_eq!(visitor.get("/me").await?.text(), "hello ada");
    let (status, said) = recorder.end(Signal::INT)?;
    assert!(status.success(), "{said}");
    let expected = format!("prove with: lethe prove --journey {output} -- python3 app.py");
    assert!(said.contains(&expected), "{said}");

    let proof = lab.prove(&folder, &path, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return Ok(());
    }
    let finding = &proof.json["findings"][0];
    assert_eq!(proof.status.code(), Some(1), "{}", proof.text());
    assert_eq!(
        (&finding["kind"], &finding["confidence"]),
        (&"memory".into(), &"proven".into()),
        "{finding:#}"
    );
    assert_eq!(
        (&finding["producer"]["step"], &finding["consumer"]["step"]),
        (&2.into(), &3.into()),
        "{finding:#}"
    );
    Ok(())
}
