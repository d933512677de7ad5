//! Servers as they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton::host::upgrade::obtain::{Patience, Source};

use super::servers::{BYTES_MAX, Host, PATIENCE, Server, listing, program, say, serve, sha256};

const LENGTH: usize = 200_000;

#[test]
fn a_broken_connection_is_gone_on_with() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| {
        let cut = (times.fetch_add(1, Ordering::SeqCst) < 2).then_some(70_000);
        serve(asked, wire, &body, "\"one\"", cut)
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    let asked = server.asked();
    assert_eq!(asked.iter().map(|asked| asked.from()).collect::<Vec<_>>(), [None, Some(70_000), Some(140_000)]);
    assert_eq!(asked[1].header("if-range").as_deref(), Some("\"one\""));
}

/// As after a restart of the process: another call, which knows nothing but the files.
#[test]
fn the_next_call_goes_on_where_the_last_one_ended() {
    let (mut host, content) = (Host::new(), program(LENGTH));
    host.patience = Patience { attempts: 1, ..PATIENCE };
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| {
        let cut = (times.fetch_add(1, Ordering::SeqCst) == 0).then_some(150_000);
        serve(asked, wire, &body, "\"one\"", cut)
    });
    let link = server.link("/noded", &content);
    host.assert_refused(&link, &["broke after 150000 bytes"]);
    assert_eq!(host.partial_bytes(), 150_000);
    let mut first = None;
    host.obtain_as(Source::Operator(&link), &mut |done, total| {
        assert!(done >= 150_000, "{done}");
        first = first.or(total.map(|total| (done, total)));
        true
    })
    .unwrap();
    host.assert_has(&content);
    assert_eq!(first, Some((150_000, 200_000)));
    assert_eq!(server.asked()[1].from(), Some(150_000));
}

#[test]
fn a_file_that_changed_meanwhile_is_begun_anew() {
    let (mut host, old, content) = (Host::new(), vec![b'x'; LENGTH], program(LENGTH));
    host.patience = Patience { attempts: 1, ..PATIENCE };
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| match times.fetch_add(1, Ordering::SeqCst) {
        0 => serve(asked, wire, &old, "\"old\"", Some(90_000)),
        _ => serve(asked, wire, &body, "\"new\"", None),
    });
    let link = server.link("/noded", &content);
    host.assert_refused(&link, &["broke after 90000 bytes"]);
    host.obtain(&link).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked()[1].header("if-range").as_deref(), Some("\"old\""));
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_of_it_again() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {LENGTH}\r\n\r\n")?;
        let first = times.fetch_add(1, Ordering::SeqCst) == 0;
        wire.write_all(&body[..if first { 50_000 } else { LENGTH }])
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked()[1].from(), Some(50_000));
}

#[test]
fn nothing_is_gone_on_with_unless_the_server_vouches_for_it() {
    for (headers, asks_for) in [
        ("", None),
        ("ETag: W/\"weak\"\r\n", None),
        ("Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n", Some("Sun, 01 Nov 2026 00:00:00 GMT")),
        ("ETag: W/\"weak\"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n", Some("Sun, 01 Nov 2026 00:00:00 GMT")),
    ] {
        let (host, content) = (Host::new(), program(LENGTH));
        let body = content.clone();
        let times = AtomicUsize::new(0);
        let server = Server::start(move |_, wire| {
            write!(wire, "HTTP/1.1 200 OK\r\n{headers}Content-Length: {LENGTH}\r\n\r\n")?;
            let first = times.fetch_add(1, Ordering::SeqCst) == 0;
            wire.write_all(&body[..if first { 50_000 } else { LENGTH }])
        });
        host.obtain(&server.link("/noded", &content)).unwrap();
        host.assert_has(&content);
        let again = &server.asked()[1];
        assert_eq!(again.header("if-range").as_deref(), asks_for, "after {headers:?}");
        assert_eq!(again.from().is_some(), asks_for.is_some(), "after {headers:?}");
    }
}

#[test]
fn a_part_that_was_not_asked_for_is_not_appended() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| match times.fetch_add(1, Ordering::SeqCst) {
        0 => serve(asked, wire, &body, "\"one\"", Some(60_000)),
        1 => say(wire, "206 Partial Content", "Content-Range: bytes 10-199999/200000\r\n", &body[10..]),
        _ => serve(asked, wire, &body, "\"one\"", None),
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked().iter().map(|asked| asked.from()).collect::<Vec<_>>(), [None, Some(60_000), None]);
}

#[test]
fn a_part_longer_than_the_whole_is_begun_anew() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| match times.fetch_add(1, Ordering::SeqCst) {
        0 => serve(asked, wire, &body, "\"one\"", Some(60_000)),
        1 => say(wire, "416 Range Not Satisfiable", "", b""),
        _ => serve(asked, wire, &body, "\"one\"", None),
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked()[2].from(), None);
}

#[test]
fn what_came_whole_before_a_crash_is_not_asked_for_again() {
    let (mut host, content) = (Host::new(), program(LENGTH));
    host.patience = Patience { attempts: 1, ..PATIENCE };
    let body = content.clone();
    // All of it comes, and the end is never said.
    let server = Server::start(move |_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {}\r\n\r\n", LENGTH + 1)?;
        wire.write_all(&body)
    });
    let link = server.link("/noded", &content);
    host.assert_refused(&link, &["broke after 200000 bytes"]);
    host.obtain(&link).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_wrong_checksum_removes_what_came_and_says_both() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let server = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    host.assert_refused(&server.link("/noded", b"another"), &[&sha256(b"another"), &sha256(&content), "removed"]);
    assert_eq!(host.partial_bytes(), 0);
    assert!(!listing(&host.download_dir()).iter().any(|path| path.ends_with(".from")));
    assert_eq!(server.asked().len(), 1, "another attempt would get the same");
}

#[test]
fn attempts_are_bounded() {
    let host = Host::new();
    let server = Server::start(|_, wire| say(wire, "503 Service Unavailable", "", b""));
    host.assert_refused(&server.link("/noded", b""), &["/noded answers 503"]);
    assert_eq!(server.asked().len(), 3);
    let gone = Server::start(|_, wire| say(wire, "404 Not Found", "", b""));
    host.assert_refused(&gone.link("/noded", b""), &["/noded answers 404"]);
    assert_eq!(gone.asked().len(), 1, "what is not there is not asked for again");
    let link = gone.link("/noded", b"");
    let server = gone.addr.to_string();
    drop(gone);
    host.assert_refused(&link, &["cannot reach", &server]);
}

#[test]
fn a_server_that_is_ill_for_a_moment_is_asked_again() {
    let (host, content) = (Host::new(), program(1000));
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| match times.fetch_add(1, Ordering::SeqCst) {
        0 => say(wire, "502 Bad Gateway", "", b"ill"),
        1 => say(wire, "429 Too Many Requests", "", b"slowly"),
        _ => serve(asked, wire, &body, "\"one\"", None),
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
}

#[test]
fn a_body_said_to_be_too_large_is_not_read() {
    let (mut host, content) = (Host::new(), program(LENGTH));
    host.bytes_max = LENGTH as u64 - 1;
    let body = content.clone();
    let server = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let (link, mut most) = (server.link("/noded", &content), 0);
    let error = host.obtain_as(Source::Operator(&link), &mut |done, _| {
        most = most.max(done);
        true
    });
    let error = error.unwrap_err();
    assert!(error.contains("larger than the 199999 bytes") && error.contains("upgrade.download_max_mib"), "{error}");
    assert_eq!(most, 0, "bytes of it were read");
    assert_eq!((host.partial_bytes(), server.asked().len()), (0, 1));
    host.bytes_max = LENGTH as u64;
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
}

#[test]
fn a_body_without_an_end_is_ended() {
    let host = Host::new();
    let server = Server::start(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(wire, "10000\r\n")?;
            wire.write_all(&[7; 0x10000])?;
            write!(wire, "\r\n")?;
        }
    });
    let mut most = 0;
    let link = server.link("/noded", b"");
    let error = host
        .obtain_as(Source::Operator(&link), &mut |done, _| {
            most = most.max(done);
            true
        })
        .unwrap_err();
    assert!(error.contains("larger than the 1048576 bytes"), "{error}");
    assert!(most <= BYTES_MAX, "{most}");
    assert_eq!(host.partial_bytes(), 0);
}

#[test]
fn a_body_that_stops_is_given_up_and_gone_on_with() {
    let (mut host, content) = (Host::new(), program(LENGTH));
    host.patience = Patience { stall: Duration::from_millis(300), ..PATIENCE };
    let body = content.clone();
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked, wire| {
        if times.fetch_add(1, Ordering::SeqCst) > 0 {
            return serve(asked, wire, &body, "\"one\"", None);
        }
        serve(asked, wire, &body, "\"one\"", Some(1000))?;
        wire.flush()?;
        // Until the other side has gone away.
        while wire.read(&mut [0; 64])? > 0 {}
        Ok(())
    });
    host.obtain(&server.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked()[1].from(), Some(1000));
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let mut host = Host::new();
    host.patience = Patience { stall: Duration::from_millis(200), attempts: 2, ..PATIENCE };
    let server = Server::start(|_, wire| {
        while wire.read(&mut [0; 64])? > 0 {}
        Ok(())
    });
    host.assert_refused(&server.link("/noded", b""), &["did not answer within 0.2 s"]);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn whoever_waits_may_end_it_and_what_came_is_kept() {
    let (host, content) = (Host::new(), program(LENGTH));
    let body = content.clone();
    let server = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let link = server.link("/noded", &content);
    let error = host.obtain_as(Source::Operator(&link), &mut |done, _| done < 10_000).unwrap_err();
    assert!(error.contains("is kept"), "{error}");
    let kept = host.partial_bytes();
    assert!((10_000..LENGTH as u64).contains(&kept), "{kept}");
    host.obtain(&link).unwrap();
    host.assert_has(&content);
    assert_eq!(server.asked()[1].from(), Some(kept as usize));
}

/// The server is silent, and the bound is far away.
#[test]
fn it_is_ended_at_once_also_while_nothing_comes() {
    let host = Host::new();
    let server = Server::start(|_, wire| {
        while wire.read(&mut [0; 64])? > 0 {}
        Ok(())
    });
    let began = Instant::now();
    let link = server.link("/noded", b"");
    let mut looks = 0;
    let error = host.obtain_as(Source::Operator(&link), &mut |_, _| {
        looks += 1;
        looks < 3
    });
    assert!(error.unwrap_err().contains("was ended"));
    assert!(began.elapsed() < PATIENCE.stall, "{:?}", began.elapsed());
}

#[test]
fn redirects_are_followed_relative_ones_too() {
    let (host, content) = (Host::new(), program(5000));
    let body = content.clone();
    let far = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let to = far.url("/stored?signature=1");
    let server = Server::start(move |asked, wire| {
        let to = match asked.path.as_str() {
            "/releases/v2/noded" => "latest",
            "/releases/v2/latest" => "/download",
            _ => &to,
        };
        say(wire, "302 Found", &format!("Location: {to}\r\n"), b"elsewhere")
    });
    host.obtain(&server.link("/releases/v2/noded", &content)).unwrap();
    host.assert_has(&content);
    let paths: Vec<String> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/releases/v2/noded", "/releases/v2/latest", "/download"]);
    assert_eq!(far.asked()[0].path, "/stored?signature=1");
}

#[test]
fn redirects_without_an_end_or_to_nowhere_are_not_followed() {
    let host = Host::new();
    let around = Server::start(|_, wire| say(wire, "301 Moved Permanently", "Location: /again\r\n", b""));
    host.assert_refused(&around.link("/noded", b""), &["more than 8 redirects"]);
    assert_eq!(around.asked().len(), 9);
    for (location, words) in [
        ("ftp://host.example/noded", "only http and https"),
        ("file:///etc/passwd", "no address to follow"),
        ("http://me:pw@host.example/noded", "has a user in it"),
    ] {
        let server = Server::start(move |_, wire| say(wire, "302 Found", &format!("Location: {location}\r\n"), b""));
        let error = host.assert_refused(&server.link("/noded", b""), &[words]);
        assert!(!error.contains("pw@"), "{error}");
    }
}

#[test]
fn another_address_does_not_go_on_with_the_parts_of_the_first() {
    let (mut host, content) = (Host::new(), program(LENGTH));
    host.patience = Patience { attempts: 1, ..PATIENCE };
    let (body, same) = (content.clone(), content.clone());
    let first = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", Some(1000)));
    let second = Server::start(move |asked, wire| serve(asked, wire, &same, "\"one\"", None));
    host.assert_refused(&first.link("/noded", &content), &["broke after 1000 bytes"]);
    host.obtain(&second.link("/noded", &content)).unwrap();
    host.assert_has(&content);
    assert_eq!(second.asked()[0].from(), None);
}
