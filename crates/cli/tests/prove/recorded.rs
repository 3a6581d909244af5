//! What a person did before `lethe record` is enough to prove a service with.

use std::fs;

use http::Method;
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

/// A photo that is uploaded while it is recorded would be found by every worker of the proof, were it still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_leaves_no_file_behind() -> anyhow::Result<()> {
    let (lab, example) = (Lab::new(), examples().join("file-upload/app.py"));
    let folder = lab.path().join("service");
    fs::create_dir(&folder)?;
    fs::copy(example, folder.join("app.py"))?;
    let path = lab.path().join("recorded.toml");
    let recorder = Recorder::start(&folder, &["-o", path.to_str().unwrap(), "--", "python3", "app.py"])?;
    let mut visitor = Visitor::new(recorder.address);
    let photo = b"the lake at noon".as_slice().into();
    assert_eq!(visitor.send(Method::PUT, "/photos/lake.txt", &[], photo).await?.status, 201);
    assert_eq!(visitor.get("/photos/lake.txt").await?.text(), "the lake at noon");
    let (status, said) = recorder.end(Signal::INT)?;
    assert!(status.success(), "{said}");
    if said.contains("to files stays") {
        assert!(std::env::var_os("LETHE_TEST_WITHOUT_WORLDS").is_some(), "{said}");
        return Ok(());
    }
    assert_eq!(fs::read_dir(&folder)?.count(), 1, "{said}");

    let proof = lab.prove(&folder, &path, &["python3", "app.py"]);
    let finding = &proof.json["findings"][0];
    assert_eq!(
        (proof.status.code(), &finding["kind"], &finding["confidence"]),
        (Some(1), &"file".into(), &"proven".into()),
        "{}",
        proof.text()
    );
    Ok(())
}
