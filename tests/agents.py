"""What programs say that they are: those that people read mail and follow links with, and machines.

Collected from vendors' documents and from the names that programs have; not from the gateway's own tables.
"""

from __future__ import annotations

_BLINK = "AppleWebKit/537.36 (KHTML, like Gecko)"
_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
_ANDROID = "Mozilla/5.0 (Linux; Android 10; K)"
_IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X)"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_IE = "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0"

PEOPLE = (
    # https://www.chromium.org/updates/ua-reduction/ and
    # https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/User-Agent
    f"{_WINDOWS} {_BLINK} Chrome/142.0.0.0 Safari/537.36",
    f"{_WINDOWS} {_BLINK} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    f"{_ANDROID} {_BLINK} Chrome/142.0.0.0 Mobile Safari/537.36",
    f"{_ANDROID} {_BLINK} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    f"{_IPHONE} {_WEBKIT} Version/18.6 Mobile/15E148 Safari/604.1",
    f"{_MAC} {_WEBKIT} Version/18.6 Safari/605.1.15",
    # Mail programs: Apple's without its privacy, Outlook, Thunderbird
    f"{_MAC} {_WEBKIT}",
    f"{_IPHONE} {_WEBKIT} Mobile/15E148",
    f"{_IE}; Microsoft Outlook 16.0.18129; ms-office; MSOffice 16)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Thunderbird/140.4.0",
    "Outlook-iOS/2.0",
    # Browsers within other programs
    f"Mozilla/5.0 (Linux; Android 15; SM-S921B; wv) {_BLINK} Chrome/142.0 Mobile Safari/537.36 Line/15.18/IAB",
    f"{_IPHONE} {_WEBKIT} Mobile/22G86 Safari Line/15.18.0",
    f"{_IPHONE} {_WEBKIT} Mobile/22G86 [FBAN/FBIOS;FBAV/538.0.0.41.75;FBDV/iPhone16,1;FBMD/iPhone;FBSN/iOS;FBSV/18.6]",
    f"{_ANDROID} {_BLINK} Version/4.0 Chrome/142.0.0.0 Mobile Safari/537.36 Instagram 405.0.0.36.76 Android",
    f"{_IPHONE} {_WEBKIT} GSA/394.0.814 Mobile/15E148 Safari/604.1",
)

GMAIL_PROXY = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
"""https://www.scientiamobile.com/what-is-google-image-proxy/"""
YAHOO_PROXY = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"

GMAIL_PREFETCH = f"{_WINDOWS} {_BLINK} Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
"""https://bird.com/blog/gmail-prefetching-images"""
_IMESSAGE = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1"
    " Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"
)

MACHINES = (
    ("Mozilla/5.0", "apple_privacy"),
    (GMAIL_PREFETCH, "prefetch"),
    # Braze's documentation on the filtering of bot clicks
    ("Barracuda Sentinel (EE)", "scanner"),
    ("GoogleMessages/20", "preview"),
    ("python-requests/2.32.3", "program"),
    ("Mimecast-Link-Protect", "scanner"),
    ("Microsoft Office Existence Discovery", "scanner"),
    ("curl/8.14.1", "program"),
    ("Go-http-client/2.0", "program"),
    ("Java/21.0.2", "program"),
    ("okhttp/4.12.0", "program"),
    ("Python/3.11 aiohttp/3.14.5", "program"),
    ("Apache-HttpClient/4.5.14 (Java/17.0.1)", "program"),
    # https://docs.slack.dev/robots, https://developers.facebook.com/docs/sharing/webmasters/web-crawlers
    ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "preview"),
    ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "preview"),
    ("WhatsApp/2.23.20.0 A", "preview"),
    ("Twitterbot/1.0", "preview"),
    ("TelegramBot (like TwitterBot)", "preview"),
    (_IMESSAGE, "preview"),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler"),
    ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "crawler"),
    (f"Mozilla/5.0 (X11; Linux x86_64) {_BLINK} HeadlessChrome/142.0.0.0 Safari/537.36", "crawler"),
)
"""Each with how it is known."""
