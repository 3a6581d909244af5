//! What a crawl finds, and that it can be played again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{AppendHeaders, Html, IntoResponse, Response},
    routing::{get, post},
};
use lethe_journey::{
    address,
    crawl::{self, Bounds},
    destination::Destination,
    player::{Player, Settings},
};
use tokio::net::TcpListener;

type Book = Arc<Mutex<Vec<String>>>;

async fn book(State(book): State<Book>) -> Html<String> {
    let book = book.lock().unwrap();
    let (entries, own) = (book.join(", "), 100 + book.len());
    Html(format!(
        "<p>{entries}</p><a href=/mine/{own}>yours</a><a href=about.html>about</a><a href='/entries/1'>1</a><a href='/entries/2'>2</a><a href='/entries/3'>3</a>\
         <a href=/sign-out>out</a><a href=https://other.example/>away</a><a href=/style.css>style</a>\
         <form method=post action=/entries><input type=hidden name=token value=t{}><input name=user><textarea name=text></textarea>\
         <input type=radio name=mood value=good><input type=radio name=mood value=bad><select name=size><option value=''>-<option value=s>S</select>\
         <input type=checkbox name=spam><input type=number name=age min=3><button name=go value=1>ok</button></form>\
         <form method=post action=/sign-out></form><form action=/search><input type=search name=q></form>",
        entries.len()
    ))
}

async fn sign(State(book): State<Book>, form: String) -> Response {
    let fields = address::decode_form(&form);
    let value =
        |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut book = book.lock().unwrap();
    let token = format!("t{}", book.join(", ").len());
    let expected = [("mood", "good"), ("size", "s"), ("age", "3"), ("go", "1"), ("token", &token)];
    let is_right =
        expected.iter().all(|(name, wanted)| value(name) == Some(wanted)) && value("spam").is_none();
    if !is_right || book.iter().any(|known| Some(known.as_str()) == value("user")) {
        return (StatusCode::CONFLICT, form).into_response();
    }
    book.push(value("user").unwrap_or_default().to_owned());
    let location = format!("/entries/{}?thanks", book.len());
    (StatusCode::SEE_OTHER, AppendHeaders([(header::LOCATION, location)])).into_response()
}

async fn serve() -> Destination {
    let app = Router::new()
        .route("/", get(book))
        .route("/about.html", get(async || Html("<a href=/>back</a>")))
        .route("/entries", post(sign))
        .route("/entries/{id}", get(async || "an entry"))
        .route("/mine/100", get(async || "nothing yet"))
        .route("/search", get(async || "nothing"))
        .route("/sign-out", post(async || StatusCode::NO_CONTENT))
        .with_state(Book::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Destination::tcp(address)
}

fn identity(identity: &str) -> Settings {
    Settings { identity: identity.into(), ..Settings::default() }
}

#[tokio::test]
async fn links_are_followed_and_forms_filled_in_and_all_of_it_can_be_played_again() {
    let destination = serve().await;
    let bounds = Bounds { time_max: Duration::from_secs(300), ..Bounds::default() };
    let journey = crawl::crawl(&destination, &identity("r1a2b3"), &bounds).await.unwrap();
    let steps: Vec<String> = journey
        .steps
        .iter()
        .map(|step| format!("{} {} {}", step.method, step.path, step.expect.statuses[0].start()))
        .collect();
    assert_eq!(
        steps,
        [
            "GET / 200",
            "GET /mine/100 200",
            "GET /about.html 200",
            "GET /entries/1 200",
            "GET /entries/2 200",
            "GET / 200",
            "POST /entries 303",
            "GET {{location-7}} 200",
            "GET / 200",
            "GET / 200",
            "GET /search?q={{text}} 200",
            "GET / 200",
            "GET / 200",
            "POST /sign-out 204",
            "GET / 200",
        ]
    );
    assert_eq!(journey.steps[7].title(), "GET /entries/…");
    assert_eq!(journey.notes, ["1 links were not followed, since they may be of this run alone"]);
    // Another run is another user, whose order has another number.
    let mut player = Player::new(Arc::new(journey), identity("r4c5d6")).unwrap();
    let all = player.play(&destination).await.unwrap();
    let unmet: Vec<_> = all
        .iter()
        .flat_map(|observed| observed.unmet.iter().map(move |unmet| (observed.step, unmet)))
        .collect();
    assert!(unmet.is_empty(), "{unmet:?}");
    assert_eq!(player.variables().text("location-7").unwrap(), "/entries/2?thanks");
    assert!(all[8].text().contains("lether1a2b3, lether4c5d6"), "{}", all[8].text());
}

#[tokio::test]
async fn it_goes_no_further_than_it_may() {
    let destination = serve().await;
    let bounds = Bounds { pages_max: 2, forms_max: 0, ..Bounds::default() };
    let journey = crawl::crawl(&destination, &identity("r1a2b3"), &bounds).await.unwrap();
    assert_eq!(journey.steps.len(), 2);
    assert_eq!(journey.notes, ["6 further links and forms were not followed"]);
    let nobody = Destination::tcp(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    assert!(crawl::crawl(&nobody, &identity("r1a2b3"), &bounds).await.is_err());
}
