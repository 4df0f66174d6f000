//! The HTTP server: the page, its script and style, and the streams of events.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;

use super::event::{WatchEvent, WatchFeed};
use super::watched::Watched;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("watch.js");
/// The look of the report, and what only this page has.
const STYLE: &str = concat!(include_str!("../report/html/style.css"), include_str!("watch.css"));

/// Time between two looks at the files of a run.
const POLL: Duration = Duration::from_millis(500);
/// A stream sends a comment after this many polls without news, so that a closed page is noticed.
const SILENT_POLLS: usize = 20;
/// Number of streams at the same time; each has a thread.
const STREAMS: usize = 64;
/// Time that a client has to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The browser loads nothing from elsewhere, runs no other script, and no page may embed this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Answers requests until the process ends.
pub fn serve(listener: TcpListener, watched: Watched) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let server = Arc::new(WatchServer { watched, streams: AtomicUsize::new(0) });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok((connection, _)) = listener.accept().await else {
                // Too many open files, or a client that is gone already.
                tokio::time::sleep(POLL).await;
                continue;
            };
            let server = server.clone();
            let answer = service_fn(move |request| {
                let response = server.clone().answer(&request);
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let connection = TokioIo::new(connection);
                let http = http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).clone();
                // An error is a client that is gone or does not use HTTP.
                let _ = http.serve_connection(connection, answer).await;
            });
        }
    })
}

struct WatchServer {
    watched: Watched,
    /// Streams that are open.
    streams: AtomicUsize,
}

impl WatchServer {
    fn answer(self: Arc<Self>, request: &Request<Incoming>) -> Response<ResponseBody> {
        let mut response = self.route(request.method(), request.uri(), request.headers());
        let headers = response.headers_mut();
        let fixed: [(HeaderName, &str); 6] = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }

    fn route(self: Arc<Self>, method: &Method, uri: &hyper::Uri, headers: &HeaderMap) -> Response<ResponseBody> {
        if !is_own_origin(headers) {
            return text(
                StatusCode::FORBIDDEN,
                "open this page at http://localhost or at the IP address of the machine\n",
            );
        }
        if method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET\n");
        }
        match uri.path() {
            "/" => content("text/html; charset=utf-8", PAGE),
            "/watch.js" => content("text/javascript; charset=utf-8", SCRIPT),
            "/style.css" => content("text/css; charset=utf-8", STYLE),
            "/events" => {
                let name = uri.query().and_then(|query| query.strip_prefix("run="));
                let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
                match self.watched.feed(name.as_deref()) {
                    Some(feed) => self.stream(feed),
                    None => text(StatusCode::NOT_FOUND, "run not found\n"),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "page not found\n"),
        }
    }

    /// Sends the events of `feed` until the client is gone.
    fn stream(self: Arc<Self>, feed: Box<dyn WatchFeed>) -> Response<ResponseBody> {
        if self.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        }
        let (sender, receiver) = mpsc::channel(8);
        // Reading files blocks, so it has its own thread. A slow client makes it wait.
        thread::spawn(move || {
            follow(feed, &sender);
            self.streams.fetch_sub(1, Ordering::Relaxed);
        });
        with_type("text/event-stream", ResponseBody::Stream(receiver))
    }
}

/// Returns when the receiver is gone.
fn follow(mut feed: Box<dyn WatchFeed>, sender: &mpsc::Sender<String>) {
    let (mut problem, mut silent) = (String::new(), 0);
    loop {
        let mut events = Vec::new();
        let now = feed.news(&mut events).err().map_or_else(String::new, |error| format!("{error:#}"));
        if now != problem {
            events.push(WatchEvent::problem(&now));
            problem = now;
        }
        let mut frames: String = events.iter().map(WatchEvent::frame).collect();
        silent = if frames.is_empty() { silent + 1 } else { 0 };
        if silent == SILENT_POLLS {
            (frames, silent) = (": still here\n\n".to_owned(), 0);
        }
        if sender.is_closed() || (!frames.is_empty() && sender.blocking_send(frames).is_err()) {
            return;
        }
        thread::sleep(POLL);
    }
}

/// Whether a request comes from this page, or from someone who typed its address. Another web site could otherwise read the runs,
/// either directly or through a host name of its own that leads to this machine (DNS rebinding), which an IP address cannot be.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = text(&header::HOST) else { return false };
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let address = bare.trim_start_matches('[').trim_end_matches(']');
    let is_own_host = bare.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok();
    let is_own_site = |site: &str| site == "same-origin" || site == "none";
    is_own_host
        && text(&header::ORIGIN).is_none_or(|origin| origin.eq_ignore_ascii_case(&format!("http://{host}")))
        && text(&HeaderName::from_static("sec-fetch-site")).is_none_or(is_own_site)
}

/// The body of a response.
enum ResponseBody {
    Whole(Option<&'static str>),
    Stream(mpsc::Receiver<String>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            ResponseBody::Whole(text) => Poll::Ready(text.take().map(Bytes::from)),
            ResponseBody::Stream(frames) => frames.poll_recv(context).map(|frame| frame.map(Bytes::from)),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(text) => SizeHint::with_exact(text.map_or(0, str::len) as u64),
            ResponseBody::Stream(_) => SizeHint::default(),
        }
    }
}

fn content(kind: &'static str, body: &'static str) -> Response<ResponseBody> {
    with_type(kind, ResponseBody::Whole(Some(body)))
}

fn text(status: StatusCode, body: &'static str) -> Response<ResponseBody> {
    let mut response = content("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn with_type(kind: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(headers: &[(&'static str, &str)]) -> bool {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        is_own_origin(&headers.iter().map(header).collect())
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        for host in ["localhost:4000", "127.0.0.1:4000", "[::1]:4000", "192.168.0.7:4000", "localhost", "LOCALHOST:1"] {
            assert!(is_own(&[("host", host)]), "{host}");
            assert!(is_own(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
        }
        for host in ["evil.example:4000", "localhost.evil.example", "127.0.0.1.evil.example:80", "", ":4000"] {
            assert!(!is_own(&[("host", host)]), "{host}");
        }
        assert!(!is_own(&[]));
        for origin in ["http://evil.example", "null", "http://localhost:3000", "https://localhost:4000"] {
            assert!(!is_own(&[("host", "localhost:4000"), ("origin", origin)]), "{origin}");
        }
        for (site, own) in [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)] {
            assert_eq!(is_own(&[("host", "localhost:4000"), ("sec-fetch-site", site)]), own, "{site}");
        }
    }
}
