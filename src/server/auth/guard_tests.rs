//! Who is held up by wrong passwords, and who is not.

use std::net::IpAddr;

use crate::api::secret::SecretText;
use crate::server::auth::AuthError;
use crate::server::auth::accounts::{Newcomer, WebSignIn};
use crate::server::auth::testing::{Bench, bench};

const EMAIL: &str = "bob@example.org";
const RIGHT: &str = "correct horse";

async fn with_bob() -> Bench {
    let bench = bench().await;
    let password = SecretText::new(RIGHT);
    bench
        .auth
        .create_account(EMAIL, Some(password), false)
        .await
        .expect("account");
    bench
}

/// Somebody at that address, whose browser shows this.
fn at(address: &str, device: Option<&WebSignIn>) -> Newcomer {
    let address: IpAddr = address.parse().expect("an address");
    let device = device.map(|signed_in| signed_in.device.expose().to_owned());
    Newcomer::new("test", None, address).with_device(device)
}

/// A try: who was let in, or for how long they must wait.
async fn try_it(
    bench: &Bench,
    (email, password): (&str, &str),
    from: Newcomer,
) -> Result<Option<WebSignIn>, u32> {
    match bench
        .auth
        .sign_in_by_password(email, SecretText::new(password), from)
        .await
    {
        Ok(answer) => Ok(answer),
        Err(AuthError::TooManyTries { wait_seconds }) => Err(wait_seconds),
        Err(error) => panic!("{error}"),
    }
}

async fn wrong(bench: &Bench, email: &str, from: Newcomer) -> Result<(), u32> {
    let answer = try_it(bench, (email, "not this one"), from).await?;
    assert!(answer.is_none(), "a wrong password let somebody in");
    Ok(())
}

async fn right(bench: &Bench, from: Newcomer) -> WebSignIn {
    try_it(bench, (EMAIL, RIGHT), from)
        .await
        .expect("not held up")
        .expect("let in")
}

/// Tries until somebody is held up; how many that were.
async fn until_held_up(bench: &Bench, email: &str, address: &str) -> u32 {
    for tries in 0..100 {
        if wrong(bench, email, at(address, None)).await.is_err() {
            return tries;
        }
    }
    panic!("nobody is held up");
}

#[tokio::test]
async fn a_stranger_who_hammers_locks_out_only_the_stranger() {
    let bench = with_bob().await;
    let device = right(&bench, at("192.0.2.1", None)).await;
    assert_eq!(until_held_up(&bench, EMAIL, "203.0.113.9").await, 6);
    let held = try_it(&bench, (EMAIL, RIGHT), at("203.0.113.9", None)).await;
    assert_eq!(held.err(), Some(5), "not even the right one is looked at");
    // From where they were before, from a browser that was here before, and from elsewhere.
    right(&bench, at("192.0.2.1", None)).await;
    right(&bench, at("203.0.113.9", Some(&device))).await;
    right(&bench, at("198.51.100.7", None)).await;
    // And it is a wait, not a ban.
    bench.clock.advance_seconds(5);
    right(&bench, at("203.0.113.9", None)).await;
    assert!(
        wrong(&bench, EMAIL, at("203.0.113.9", None)).await.is_ok(),
        "who was right begins anew"
    );
}

#[tokio::test]
async fn a_guesser_with_many_addresses_is_slowed_and_the_owner_is_not() {
    let bench = with_bob().await;
    let device = right(&bench, at("192.0.2.1", None)).await;
    let mut looked_at = 0;
    for second in 0..600_u32 {
        let address = format!("10.{}.{}.1", second / 250, second % 250);
        looked_at += u32::from(wrong(&bench, EMAIL, at(&address, None)).await.is_ok());
        bench.clock.advance_seconds(1);
    }
    assert!((20..=45).contains(&looked_at), "{looked_at} were looked at");
    assert!(
        matches!(wrong(&bench, EMAIL, at("10.9.9.9", None)).await, Err(1..=30)),
        "the wait is short, however many there were"
    );
    right(&bench, at("192.0.2.1", None)).await;
    right(&bench, at("10.9.9.9", Some(&device))).await;
    // Whoever has forgotten where they signed in waits for half a minute at most.
    bench.clock.advance_seconds(30);
    right(&bench, at("10.9.9.8", None)).await;
}

#[tokio::test]
async fn an_address_is_counted_over_all_accounts_and_a_success_between_does_not_help() {
    let bench = with_bob().await;
    let place = "203.0.113.9";
    let mut looked_at = 0;
    for number in 0..60 {
        let email = format!("nobody{number}@example.org");
        looked_at += u32::from(wrong(&bench, &email, at(place, None)).await.is_ok());
        if looked_at == 15 {
            let _ = try_it(&bench, (EMAIL, RIGHT), at(place, None)).await;
        }
    }
    assert_eq!(looked_at, 21);
    assert!(
        wrong(&bench, "nobody@example.org", at("203.0.113.10", None))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_known_browser_has_tries_of_its_own_and_they_end_too() {
    let bench = with_bob().await;
    let device = right(&bench, at("192.0.2.1", None)).await;
    for _ in 0..6 {
        let answer = wrong(&bench, EMAIL, at("192.0.2.1", Some(&device))).await;
        assert!(answer.is_ok());
    }
    // Neither another address nor another account makes more of them.
    assert_eq!(
        wrong(&bench, EMAIL, at("198.51.100.7", Some(&device))).await,
        Err(5)
    );
    for _ in 0..6 {
        let answer = wrong(&bench, "ada@example.org", at("198.51.100.8", Some(&device))).await;
        assert!(answer.is_ok());
    }
    let others = wrong(&bench, "ada@example.org", at("198.51.100.8", Some(&device))).await;
    assert!(others.is_err(), "it is a browser of bob's");
    bench.clock.advance_seconds(91 * 24 * 3600);
    assert!(bench.auth.store.begin().await.is_ok());
}

#[tokio::test]
async fn many_at_once_are_no_more_than_one_after_the_other() {
    let bench = with_bob().await;
    let tries = (0..12).map(|_| wrong(&bench, EMAIL, at("203.0.113.9", None)));
    let looked_at = futures::future::join_all(tries).await;
    assert_eq!(looked_at.iter().filter(|answer| answer.is_ok()).count(), 6);
}

#[tokio::test]
async fn an_account_that_is_not_there_is_held_up_as_one_that_is() {
    let bench = with_bob().await;
    assert_eq!(
        until_held_up(&bench, "nobody@example.org", "203.0.113.9").await,
        6
    );
    assert_eq!(until_held_up(&bench, EMAIL, "203.0.113.10").await, 6);
}
