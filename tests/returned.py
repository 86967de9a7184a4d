"""Mails that came back, each in the form in which its server writes them, about a mail of ours that it returns."""

from __future__ import annotations

from dataclasses import dataclass

ADDRESS = "ann@example.net"


@dataclass(frozen=True)
class Sent:
    """A mail of ours, as who returns it knows it."""

    attempt: str
    message: str
    mail_from: str = "hello@example.com"
    """The envelope's sender, hence whom bounces are for."""

    @property
    def header(self) -> str:
        return f"""\
Date: Sun, 01 Mar 2026 12:00:00 +0000
From: "Decorum" <hello@example.com>
To: <{ADDRESS}>
Message-ID: <{self.message}@example.com>
X-Decorum-Attempt: {self.attempt}
List-Unsubscribe: <https://m.example.com/u/{self.attempt}>
Subject: Your application
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: base64
"""

    @property
    def text(self) -> str:
        return f"{self.header}\nVGhyZWUgbWludXRlcyBsZWZ0Lg==\n"


def rfc3464_simple(sent: Sent, action: str = "failed", status: str = "4.0.0", more: str = "") -> str:
    """RFC 3464, appendix E, the simple example: sent by an SMTP server that gave up after days."""
    return f"""\
Date: Thu, 7 Jul 1994 17:16:05 -0400
From: Mail Delivery Subsystem <MAILER-DAEMON@CS.UTK.EDU>
Message-Id: <199407072116.RAA14128@CS.UTK.EDU>
Subject: Returned mail: Cannot send message for 5 days
To: <{sent.mail_from}>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
      boundary="RAA14128.773615765/CS.UTK.EDU"

--RAA14128.773615765/CS.UTK.EDU

The original message was received at Sat, 2 Jul 1994 17:10:28 -0400
from root@localhost

   ----- The following addresses had delivery problems -----
<{ADDRESS}>  (unrecoverable error)

----- Transcript of session follows -----
<{ADDRESS}>... Deferred: Connection timed out
      with larry.slip.umd.edu.
Message could not be delivered for 5 days
Message will be deleted from queue

--RAA14128.773615765/CS.UTK.EDU
content-type: message/delivery-status

Reporting-MTA: dns; cs.utk.edu
{more}
Original-Recipient: rfc822;{ADDRESS}
Final-Recipient: rfc822;{ADDRESS}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 426 connection timed out
Last-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400

--RAA14128.773615765/CS.UTK.EDU
content-type: message/rfc822

{sent.text}
--RAA14128.773615765/CS.UTK.EDU--
"""


def rfc3464_several(sent: Sent) -> str:
    """RFC 3464, appendix E, the example of several recipients."""
    return f"""\
Date: Fri, 8 Jul 1994 09:21:47 -0400
From: Mail Delivery Subsystem <MAILER-DAEMON@CS.UTK.EDU>
Subject: Returned mail: User unknown
To: <{sent.mail_from}>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
      boundary="JAA13167.773673707/CS.UTK.EDU"

--JAA13167.773673707/CS.UTK.EDU
content-type: text/plain; charset=us-ascii

   ----- The following addresses had delivery problems -----
<arathib@vnet.ibm.com>  (unrecoverable error)
<wsnell@sdcc13.ucsd.edu>  (unrecoverable error)

--JAA13167.773673707/CS.UTK.EDU
content-type: message/delivery-status

Reporting-MTA: dns; cs.utk.edu

Original-Recipient: rfc822;arathib@vnet.ibm.com
Final-Recipient: rfc822;arathib@vnet.ibm.com
Action: failed
Status: 5.0.0 (permanent failure)
Diagnostic-Code: smtp;  550 'arathib@vnet.IBM.COM' is not a
 registered gateway user
Remote-MTA: dns; vnet.ibm.com

Original-Recipient: rfc822;johnh@hpnjld.njd.hp.com
Final-Recipient: rfc822;johnh@hpnjld.njd.hp.com
Action: delayed
Status: 4.0.0 (hpnjld.njd.jp.com: host name lookup failure)

Original-Recipient: rfc822;wsnell@sdcc13.ucsd.edu
Final-Recipient: rfc822;wsnell@sdcc13.ucsd.edu
Action: failed
Status: 5.0.0
Diagnostic-Code: smtp; 550 user unknown
Remote-MTA: dns; sdcc13.ucsd.edu

--JAA13167.773673707/CS.UTK.EDU
content-type: message/rfc822

{sent.text}
--JAA13167.773673707/CS.UTK.EDU--
"""


def rfc3464_gateway(sent: Sent) -> str:
    """RFC 3464, appendix E, the example of a gateway to a foreign system: no part returns the mail."""
    return f"""\
Disclose-recipients: prohibited
Date: Fri, 08 Jul 1994 09:21:25 -0400 (EDT)
From: Message Router Submission Agent <AMMGR@corp.timeplex.com>
Subject: Status of: Re: Battery current sense
To: {sent.mail_from}
Message-id: <01HEGJ0WNBY28Y95LN@mr.timeplex.com>
MIME-version: 1.0
content-type: multipart/report;
    report-type=delivery-status;
    boundary="84229080704991.122306.SYS30"

--84229080704991.122306.SYS30
content-type: text/plain

Invalid address - nair_s
%DIR-E-NODIRMTCH, No matching Directory Entry
Entry found

--84229080704991.122306.SYS30
content-type: message/delivery-status

Reporting-MTA: mailbus; SYS30

Final-Recipient: unknown; nair_s
Status: 5.0.0 (unknown permanent failure)
Action: failed

--84229080704991.122306.SYS30--
"""


def rfc3464_delayed(sent: Sent) -> str:
    """RFC 3464, appendix E, the example of a delay."""
    return f"""\
MIME-Version: 1.0
From: <postmaster@nsfnet-relay.ac.uk>
Message-Id: <199407092338.TAA23293@CS.UTK.EDU>
Received: from nsfnet-relay.ac.uk by sun2.nsfnet-relay.ac.uk
        id <g.12954-0@sun2.nsfnet-relay.ac.uk>;
        Sun, 10 Jul 1994 00:36:51 +0100
To: {sent.mail_from}
Date: Sun, 10 Jul 1994 00:36:51 +0100
Subject: WARNING: message delayed at "nsfnet-relay.ac.uk"
content-type: multipart/report; report-type=delivery-status;
      boundary=foobar

--foobar
content-type: text/plain

The following message:

UA-ID:  Reliable PC (...
Q-ID:   sun2.nsf:77/msg.11820-0

has not been delivered to the intended recipient:

   thomas@de-montfort.ac.uk

despite repeated delivery attempts over the past 24 hours.

--foobar
content-type: message/delivery-status

Reporting-MTA: dns; sun2.nsfnet-relay.ac.uk

Final-Recipient: rfc822;thomas@de-montfort.ac.uk
Status: 4.0.0 (unknown temporary failure)
Action: delayed

--foobar--
"""


def postfix(sent: Sent, status: str = "5.1.1", reply: str = "smtp; 550 5.1.1 <ann@example.net>: User unknown") -> str:
    """Postfix, bounce(5) and bounce(8), as local(8) pipes it: a line of mbox and the address come first."""
    return f"""\
From MAILER-DAEMON  Sun Mar  1 12:00:05 2026
Return-Path: <>
X-Original-To: {sent.mail_from}
Delivered-To: bounces@m.example.com
Received: by mail.example.com (Postfix)
\tid E068820C1A; Sun,  1 Mar 2026 12:00:05 +0000 (UTC)
Date: Sun,  1 Mar 2026 12:00:05 +0000 (UTC)
From: MAILER-DAEMON@mail.example.com (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {sent.mail_from}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="DE9FF20C16.1772366405/mail.example.com"
Message-Id: <20260301120005.E068820C1A@mail.example.com>

This is a MIME-encapsulated message.

--DE9FF20C16.1772366405/mail.example.com
Content-Description: Notification
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

This is the mail system at host mail.example.com.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

--DE9FF20C16.1772366405/mail.example.com
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com
X-Postfix-Queue-ID: DE9FF20C16
X-Postfix-Sender: rfc822; {sent.mail_from}
Arrival-Date: Sun,  1 Mar 2026 12:00:00 +0000 (UTC)

Final-Recipient: rfc822; {ADDRESS}
Original-Recipient: rfc822;{ADDRESS}
Action: failed
Status: {status}
Remote-MTA: dns; mx.example.net
Diagnostic-Code: {reply}

--DE9FF20C16.1772366405/mail.example.com
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 8bit

Return-Path: <{sent.mail_from}>
Received: from gateway (localhost [127.0.0.1])
\tby mail.example.com (Postfix) with ESMTP id DE9FF20C16
\tfor <{ADDRESS}>; Sun,  1 Mar 2026 12:00:00 +0000 (UTC)
{sent.header}
--DE9FF20C16.1772366405/mail.example.com--
"""


def sendmail(sent: Sent) -> str:
    """Sendmail 8.18, savemail.c."""
    return f"""\
Received: from localhost (localhost)
\tby mail.example.org (8.18.1/8.18.1) id 621C05Ji014128;
\tSun, 1 Mar 2026 12:00:05 GMT
Date: Sun, 1 Mar 2026 12:00:05 GMT
From: Mail Delivery Subsystem <MAILER-DAEMON@mail.example.org>
Message-Id: <202603011200.621C05Ji014128@mail.example.org>
To: <{sent.mail_from}>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="621C05Ji014128.1772366405/mail.example.org"
Subject: Returned mail: see transcript for details
Auto-Submitted: auto-generated (failure)

This is a MIME-encapsulated message

--621C05Ji014128.1772366405/mail.example.org

   ----- The following addresses had permanent fatal errors -----
<{ADDRESS}>
    (reason: 550 5.1.1 <{ADDRESS}>... User unknown)

--621C05Ji014128.1772366405/mail.example.org
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.org
Received-From-MTA: DNS; gateway.example.com
Arrival-Date: Sun, 1 Mar 2026 12:00:00 GMT

Final-Recipient: RFC822; {ADDRESS}
Action: failed
Status: 5.1.1
Remote-MTA: DNS; mx.example.net
Diagnostic-Code: SMTP; 550 5.1.1 <{ADDRESS}>... User unknown
Last-Attempt-Date: Sun, 1 Mar 2026 12:00:05 GMT

--621C05Ji014128.1772366405/mail.example.org
Content-Type: message/rfc822

Return-Path: <{sent.mail_from}>
{sent.text}
--621C05Ji014128.1772366405/mail.example.org--
"""


def exchange(sent: Sent) -> str:
    """Exchange Online, https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online."""
    return f"""\
From: <postmaster@example.net>
To: <{sent.mail_from}>
Date: Sun, 1 Mar 2026 12:00:05 +0000
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="75a51bc3-1c1d-4c33-a1a9-a3d0e0b0b0b0"
Content-Language: en-GB
Message-ID: <6f1b9d1e-9a6c-4f0e-8f5e-000000000000@AM0PR01MB0000.eurprd01.prod.exchangelabs.com>
In-Reply-To: <{sent.message}@example.com>
Subject: Undeliverable: Your application
Auto-Submitted: auto-replied
MIME-Version: 1.0

--75a51bc3-1c1d-4c33-a1a9-a3d0e0b0b0b0
Content-Type: multipart/alternative; differences=Content-Type;
\tboundary="6b0e0e5a-0000-4b5c-9c5d-5c5c5c5c5c5c"

--6b0e0e5a-0000-4b5c-9c5d-5c5c5c5c5c5c
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: quoted-printable

Your message to {ADDRESS} couldn't be delivered.

--6b0e0e5a-0000-4b5c-9c5d-5c5c5c5c5c5c
Content-Type: text/html; charset="us-ascii"
Content-Transfer-Encoding: quoted-printable

<html><body>Your message couldn't be delivered.</body></html>

--6b0e0e5a-0000-4b5c-9c5d-5c5c5c5c5c5c--

--75a51bc3-1c1d-4c33-a1a9-a3d0e0b0b0b0
Content-Type: message/delivery-status

Reporting-MTA: dns;AM0PR01MB0000.eurprd01.prod.exchangelabs.com
Received-From-MTA: dns;mail.example.com
Arrival-Date: Sun, 1 Mar 2026 12:00:04 +0000

Original-Recipient: rfc822;{ADDRESS}
Final-Recipient: rfc822;{ADDRESS}
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {ADDRESS} not found by SMTP address lookup
X-Display-Name: {ADDRESS}

--75a51bc3-1c1d-4c33-a1a9-a3d0e0b0b0b0
Content-Type: message/rfc822

Received: from mail.example.com (192.0.2.1) by AM0PR01MB0000.eurprd01.prod.exchangelabs.com
{sent.text}
--75a51bc3-1c1d-4c33-a1a9-a3d0e0b0b0b0--
"""


def gmail(sent: Sent) -> str:
    """Gmail, whose statuses are those of https://support.google.com/a/answer/3726730."""
    return f"""\
Return-Path: <>
Delivered-To: {sent.mail_from}
From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: {sent.mail_from}
Auto-Submitted: auto-replied
Subject: Delivery Status Notification (Failure)
References: <{sent.message}@example.com>
In-Reply-To: <{sent.message}@example.com>
X-Failed-Recipients: {ADDRESS}
Message-ID: <65e1c0de.050a0220.0000.0000.GMR@mx.google.com>
Date: Sun, 01 Mar 2026 04:00:05 -0800 (PST)
Content-Type: multipart/report; boundary="000000000000a1b2c3"; report-type=delivery-status

--000000000000a1b2c3
Content-Type: multipart/related; boundary="000000000000d4e5f6"

--000000000000d4e5f6
Content-Type: multipart/alternative; boundary="000000000000070809"

--000000000000070809
Content-Type: text/plain; charset="UTF-8"

** Address not found **

--000000000000070809--
--000000000000d4e5f6--
--000000000000a1b2c3
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
Received-From-MTA: dns; hello@example.com
Arrival-Date: Sun, 01 Mar 2026 04:00:05 -0800 (PST)
X-Original-Message-ID: <{sent.message}@example.com>

Final-Recipient: rfc822; {ADDRESS}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try
 550-5.1.1 double-checking the recipient's email address for typos or
 550 5.1.1 unnecessary spaces. - gsmtp
Last-Attempt-Date: Sun, 01 Mar 2026 04:00:05 -0800 (PST)

--000000000000a1b2c3
Content-Type: message/rfc822

{sent.text}
--000000000000a1b2c3--
"""


def exim(sent: Sent, reply: str = "550 5.1.1 <ann@example.net>: Recipient address rejected") -> str:
    """Exim, which answered in text alone for long; its specification, Customizing bounce and warning messages."""
    return f"""\
Return-path: <>
Envelope-to: {sent.mail_from}
Received: from mail by mail.example.org with local (Exim 4.80)
\tid 1P1ceB-000FL1-4q
\tfor {sent.mail_from}; Sun, 01 Mar 2026 12:00:05 +0000
X-Failed-Recipients: {ADDRESS}
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@mail.example.org>
To: {sent.mail_from}
Subject: Mail delivery failed: returning message to sender
Message-Id: <E1P1ceB-000FL1-4q@mail.example.org>
Date: Sun, 01 Mar 2026 12:00:05 +0000

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  {ADDRESS}
    SMTP error from remote mail server after RCPT TO:<{ADDRESS}>:
    host mx.example.net [192.0.2.20]: {reply}

------ This is a copy of the message, including all the headers. ------

Return-path: <{sent.mail_from}>
{sent.text}"""


def qmail(sent: Sent, why: str = "Sorry, no mailbox here by that name. (#5.1.1)") -> str:
    """The qmail-send Bounce Message Format, https://cr.yp.to/proto/qsbmf.txt."""
    return f"""\
Return-Path: <>
Delivered-To: {sent.mail_from}
Received: (qmail 317 invoked for bounce); 1 Mar 2026 12:00:05 -0000
Date: 1 Mar 2026 12:00:05 -0000
From: MAILER-DAEMON@example.net
To: {sent.mail_from}
Subject: failure notice

Hi. This is the qmail-send program at example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<{ADDRESS}>:
{why}

--- Below this line is a copy of the message.

Return-Path: <{sent.mail_from}>
{sent.text}"""


def rfc5965_simple(sent: Sent, kind: str = "abuse") -> str:
    """RFC 5965, appendix B.1."""
    return f"""\
From: <abusedesk@example.net>
Date: Thu, 8 Mar 2005 17:40:36 EDT
Subject: FW: Earn money
To: <abuse@example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
     boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP
192.0.2.1 on Thu, 8 Mar 2005 14:00:00 EDT.  For more information
about this format please see http://www.mipassoc.org/arf/.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822
Content-Disposition: inline

Received: from mailserver.example.com (mailserver.example.com
     [192.0.2.1]) by example.net with ESMTP id M63d4137594e46;
     Thu, 08 Mar 2005 14:00:00 -0400
{sent.text}
--part1_13d.2e68ed54_boundary--
"""


def rfc5965_full(sent: Sent) -> str:
    """RFC 5965, appendix B.2, with no more of the mail than the report itself tells."""
    return f"""\
From: <abusedesk@example.net>
Date: Thu, 8 Mar 2005 17:40:36 EDT
Subject: FW: Earn money
To: <abuse@example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
     boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP
192.0.2.1 on Thu, 8 Mar 2005 14:00:00 EDT.  For more information
about this format please see http://www.mipassoc.org/arf/.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <{sent.mail_from}>
Original-Rcpt-To: <{ADDRESS}>
Arrival-Date: Thu, 8 Mar 2005 14:00:00 EDT
Reporting-MTA: dns; mail.example.net
Source-IP: 192.0.2.1
Authentication-Results: mail.example.net;
               spf=fail smtp.mail={sent.mail_from}
Reported-Domain: example.com
Reported-Uri: http://example.com/earn_money.html
Reported-Uri: mailto:user@example.net
Removal-Recipient: user@example.net

--part1_13d.2e68ed54_boundary
Content-Type: text/rfc822-headers

From: <somespammer@example.com>
Subject: Earn money

--part1_13d.2e68ed54_boundary--
"""


def vacation(sent: Sent) -> str:
    """RFC 3834, 3: an answer by a machine, which quotes what it answers."""
    return f"""\
Return-Path: <>
Delivered-To: {sent.mail_from}
From: <{ADDRESS}>
To: {sent.mail_from}
Subject: Auto: Your application
Auto-Submitted: auto-replied
In-Reply-To: <{sent.message}@example.com>
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

I am away. Action: failed. This is a permanent error.

--b
Content-Type: message/rfc822

{sent.text}
--b--
"""
