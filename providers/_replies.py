"""What does a person who answers a text message want: no more of them, more again, or to know who is writing?

Pure. A stop is read out of free text, for a person may say it "in any reasonable manner" (47 CFR 64.1200(a)(10)): what
is wrongly taken for one costs some messages, one that is missed goes on annoying whoever said it. A start is one of its
words and nothing else, for it gives up a no. What is in between is for people, and changes nothing.
"""

from __future__ import annotations

import re
import unicodedata

from providers._contract import Wish

LONGEST = 1600
"""Characters that are looked at: more is no text message."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


START = _words("start yes unstop スタート 再開 配信再開 恢复 恢復 恢复订阅 恢復訂閱 重新订阅 重新訂閱")
"""The whole of a text. CTIA, Messaging Principles and Best Practices; https://help.twilio.com/articles/223134027"""

HELP = _words("help info helpme ヘルプ 帮助 幫助 hilfe aide ayuda ajuda")
"""The whole of a text, but for courtesies."""

STOP = _words(
    # CTIA's, those that the FCC adds, and REMOVE (AWS End User Messaging); how thumbs write them; what ends something
    # only as the whole of a text; what Chinese vendors ask for ("拒收请回复R", "回T退订"); French, German, Spanish and
    # Portuguese.
    """
    stop stopall end cancel unsubscribe quit revoke optout remove
    stpo sotp tsop sttop stp st0p dtop stob stoo unsub blocked dnd spam desist nomore
    endall endthis endit endtexts endmessages endsubscription cancelall cancelthis cancelit cancelme canceleverything
    cancelsubscription iwanttocancel howdoicancel quitit enough thatsenough enoughalready
    t td r qx 回t 回td 回r 回qx 回复t 回复td 回复r 回复qx 回覆t 回覆td 回覆r 停 屏蔽 滚 滾
    arret arretez arreter stopp stopsms abmelden abmeldung abbestellen austragen
    alto baja cancelar parar pare basta yabasta nomas sair remover chega
    """
)
"""The whole of a text, but for courtesies and spaces. Some of them mean other things within a sentence."""

COURTESIES = (
    "please|pls|plz|thanks|thank you|thx|ty|now|ok|okay|hi|hello|hey|sorry|sir|asap|immediately|bitte|danke|"
    "svp|s il vous plait|sil vous plait|merci|por favor|porfa|gracias|obrigado|obrigada"
)

_PARTS = {
    "WHAT": r"(?:te?xts?|texting|messages?|messaging|msgs?|sms|emails?|mails?|calls?|calling|spam|notifications?|"
    r"alerts?|ads?|reminders?|offers?|updates?|promos?|promotions?|junk|solicitations?|marketing)",
    "DO": r"(?:te?xt|messag|message|msg|sms|contact|call|phone|ring|email|mail|bother|spam|disturb|writ|write|ping|"
    r"harass|pester|solicit|annoy|bug)",
    "SENT": r"(?:配信|送信|受信|メッセージ|ショートメール|メール|sms|広告|通知|購読|登録|連絡|お知らせ|案内)",
    "ASKED": r"(?:を|で|に|希望|お?願い(?:します|いたします|致します)?|して(?:下さい|ください|くれ|ほしい|欲しい)?|"
    r"したい|します|する|です|だ|よろしく)*",
    "AGAIN": "(?:再|给我|給我|向我|跟我|对我|對我|一直|老|总|總|继续|繼續|乱|亂|来|來)*",
}
"""What stands in angle brackets in the tables."""

HARMLESS = r"""
# Somebody would rather have more.
(?<!you )(?<!they )(?:dont|do not|never)(?: ever)? (?:stop|quit|cancel|unsub|unsubscribe|opt out|remove me|delete me)\b
(?:dont|do not|didnt|did not|never) (?:want|wish|mean|need|intend)(?: \w+){0,2} to (?:stop|quit|cancel|unsubscribe)\b
(?:dont|do not|didnt|did not|never) (?:want|wish|mean|need|intend)(?: \w+){0,2} to (?:opt out|miss|lose)\b
(?:cant|cannot|can not|couldnt|could not) stop (?!text|messag|call|send|receiv|gett)\w+ing\b
# Places, things of trade, and calling on somebody.
(?:bus|next|last|first|pit|truck|rest|whistle|one|non|full|train|tram|subway|metro|quick|final) stop\b
stop (?:by|over|off|signs?|lights?|watch|loss|losses|gap|motion|orders?|through|into|at(?! once))\b
stop (?:in (?:to|at|for|and|on|today|tomorrow|later|any ?time)|and (?:say|shop|see|chat|visit|get|pick))\b
stop (?:paying|working|smoking|drinking)\b
stop (?:the |a |my |this |that )?(?:payment|cheque|check|transfer|transaction|card|withdrawal|deduction)s?\b
stop (?:the |a |my |this |that )?(?:auto ?pay|direct debit|standing order)s?\b
wrong number of\b
arret (?:de |du )?(?:bus|tram|train|travail|maladie|cardiaque)\b
"""
"""What holds words of the next table and does not mean them: taken out before it is asked."""

SAYS_STOP = r"""
# English
\bstop\b
\bsto{2,}p+\b|\bstop{2,}\b
\bstop(?:text|texting|texts|msg|messages|messaging|sms|calling|calls?|all|it|now|please|pls|spam|sending)\b
\b(?:unsub|un subscribe|unsubscribe|unsubscribing|unsubscribed|unsuscribe|unsubcribe|unsubscibe|unscribe)\b
\bopt(?:ing|ed)?(?: me| us)? ?out\b
\b(?:remove|delete)(?: me| us| (?:my|this) (?:\w+ )?(?:number|phone|name|contact|info|information|details))\b
\b(?:take|get) (?:me|us|(?:my|this) (?:\w+ )?(?:number|name)) off\b(?! work)
\boff (?:of )?(?:this|your|ur|the) (?:\w+ )?list\b
\b(?:lose|forget|erase) (?:my|this) number\b
\bleave (?:me|us)(?: the \w+)? (?:alone|be)\b|\blet me be\b|\bgo away\b|\bget lost\b|\bbu[zg]+ off\b
\b(?:fuck|f|eff|piss|bugger|sod) off\b|\bfuck (?:you|u)\b|\bshut up\b|\bstfu\b
\b(?:dont|do not|don t|never|no longer|quit|cease)(?: (?:ever|you|please|dare|even))* <DO>(?:e|es|s|ing)?(?: to)?\
 (?:me|us|this|here|again|anymore|any more|my|any)\b
^(?:dont|do not) <DO>$
\b(?:quit|cease)(?: with)?(?: the| these| your| all)* (?:<WHAT>|sending|bothering|harassing|contacting)\b|^cease\b
\b(?:dont|do not|never) send (?:me|us|any|these|this|it|anything|more)\b(?! (?:the|my|a|an)\b)
\b(?:dont|do not|no longer) (?:want|wish|need|care)(?: to| for)?(?: \w+){0,4}\
 (?:<WHAT>|contacted|texted|called|messaged|bothered|from you)\b
\b(?:didnt|did not|never|havent|have not) (?:sign(?:ed)? up|subscribed?|opt(?:ed)? in|consent(?:ed)?)\b
\b(?:didnt|did not|never|havent|have not) (?:agreed? to (?:this|these|receive|get)|ask(?:ed)? for (?:this|these))\b
\b(?:dont|do not) consent\b|\b(?:revok|withdraw)\w*(?: \w+){0,3} (?:consent|permission|authori[sz]ation)\b|^revoke\b
\bno more(?: \w+){0,2} <WHAT>\b|\bno more of (?:this|these)\b|^no <WHAT>$
^(?:\w+ ){0,4}not interested(?: (?:anymore|any more|at all|at this time|right now))?$
^(?:\w+ ){0,4}not interested in (?:this|that|your|these|any|it)(?: \w+){0,3}$
\bwrong (?:number|num|phone|person|guy|man|woman|contact)\b|\bwrong no$|\bincorrect number\b
\bnot (?:his|her|their|the right|the correct) (?:number|person)\b
\b(?:this is|its|thats|youre|you are|ur)(?: \w+)? (?:spam|spamming|spammers?|harassment|harassing)\b|\bspamming me\b
\breport(?:ed|ing) (?:you|u|this (?:number|as)|(?:it |this )?as spam)\b|\bharass(?:ing|ment)\b
\bcease and desist\b|\bdo not (?:call|text|contact) list\b
\bblock(?:ed|ing) (?:you|u|this|your)\b|\bwant(?: \w+){1,4} stopped\b
\bcancel(?: \w+){0,3} (?:<WHAT>|subscriptions?)\b|\bend (?:(?:these|the|all|your|this|my) )*<WHAT>\b
# French
\b(?:arret|arretes?|arretez|arreter|stoppez|stopper|desabonn\w+|desinscri\w+)\b
\b(?:m|n|nous )?(?:contactez?|envoye[sz]?|envoie[sz]?|ecrivez|ecris|appelez|appelle) plus\b
\b(?:derangez?|relancez?|harcelez?) plus\b
\bne (?:veux|souhaite|desire|voudrais) plus\b
\bplus (?:me |m|nous )?(?:recevoir|contacter|etre contacte|envoyer|ecrire|appeler|deranger)
^(?:plus de|pas de) (?:sms|textos?|messages?|pubs?|publicites?|mails?|appels?)\b
\b(?:laiss\w+|fich\w+|fout\w+)(?: moi| nous)? (?:tranquilles?|la paix|en paix)\b
\b(?:retirez|enlevez|supprimez)(?: moi| mon numero)\b|\bpas interesse
\b(?:mauvais|faux) numero\b|\berreur de (?:numero|personne|destinataire)\b|\bpas (?:le bon|mon) numero\b
# German
\b(?:stopp|abmelden|abgemeldet|abbestell\w+|austragen|aufhoren)\b|\bwiderruf\w*(?: \w+){0,2} einwilligung\b
\bkeine (?:weiteren? )?(?:sms|nachrichten?|werbung|e?mails?|anrufe?)(?: mehr)?$|\bkeine(?: \w+){1,2} mehr\b
\b(?:nicht|nie) (?:mehr|wieder)(?: \w+){0,2} (?:schreib|schick|send|zusend|anruf|kontakt|melden|belastig)\w*\b
\b(?:schreib|schick|send|ruf|kontaktier|belastig)\w*(?: \w+){0,4} (?:nicht mehr|nie wieder|nie mehr)\b
\b(?:lasst?|lassen sie)(?: \w+)? (?:in ruhe|in frieden)\b|\bhor(?:t|en sie)?(?: \w+){0,2} auf\b
\bfalsche (?:nummer|person)\b|\bnummer (?:bitte )?(?:loschen|entfernen)\b|\blosch\w*(?: \w+){0,2} nummer\b
\bkein(?:erlei|en)? (?:interesse|bedarf)\b
# Spanish
\bde baja\b|\bdesuscri\w+\b|\bno mas(?: \w+)? (?:mensajes?|sms|llamadas?|textos?|correos?|publicidad)\b
\bno (?:me |nos )?(?:manden?|envien?|escriban?|llamen?|contacten?|molesten?)\b
\bno quiero (?:mas|recibir|sus|estos|que me)\b|\bya no (?:quiero|me (?:manden?|envien?|llamen?))\b
\bdej(?:e|en|a|ad) de\b|\bdejen?me en paz\b|\bno me interesa\b
\b(?:numero|persona) equivocad[oa]\b|\bequivocado de (?:numero|persona)\b
\b(?:quiten?|borren?|saquen?)(?:me|ne)? (?:de|mi numero)\b
\bcancelar (?:\w+ )?(?:suscripcion|mensajes?|sms|inscricao|assinatura|mensagens)\b
# Portuguese
\b(?:descadastr|desinscrev|desinscri)\w+\b
\bnao (?:me )?(?:mandem?|enviem?|liguem?|contatem?|incomodem?|perturbem?|escrevam?)\b
\bnao quero (?:mais|receber|ess[ae]s?|suas?)\b|\bpar(?:e|em|a) de (?:me|mandar|enviar|ligar|incomodar)\b
\bme (?:remova|tire|exclua|retire)m?\b|\b(?:remova|tire|exclua|apague)m? (?:o )?meu (?:numero|nome|contato)\b
\bme deixem? em paz\b|\bnumero errado\b|\b(?:sem|nao tenho) interesse\b
"""
"""Anywhere in a text, in small letters without accents and marks."""

HARMLESS_SOLIDLY = r"""
(?:停止|ストップ|解除|退会)(?:は)?しないで|(?:やめ|止め|辞め)ないで
(?:不|别|別|没|沒|勿)(?:是|想|要|会|會|用|能)?(?:退订|退訂|取消订阅|取消訂閱|拒收)|取消(?:退订|退訂)
"""

SAYS_STOP_SOLIDLY = r"""
(?<![a-z])(?:stop|unsubscribe)(?![a-z])
# Japanese
^(?:もう|<SENT>(?:の|を|は)?)*(?:停止|ストップ|解除|退会|拒否|中止|キャンセル|不要|オプトアウト)<ASKED>$
<SENT>(?:の|を|は)?(?:停止|ストップ|解除|拒否|中止|不要)(?!し?な[いか]|中|され|ですか)
(?:送ら|送って(?:こ|来)|送信し|配信し|送付し|メールし|よこさ|寄越さ)ない(?:で|ように)
(?:連絡し(?:てこ)?|電話し(?:てこ)?|(?:かけ|掛け|架け)(?:てこ|て来)?)ない(?:で|ように)
(?:送る|送ってくる|配信する)な(?![らのんどあか])
(?:連絡する|連絡してくる|電話する|電話してくる|かけてくる)な(?![らのんどあか])
(?:やめ|止め|辞め)(?:て(?!お[きく]|い(?!ただ))|ろ|ください|下さい)
^(?:もう|メール|sms|メッセージ|お知らせ|広告|連絡|電話|通知|案内|勧誘|営業|こういうの|こんなの|これ|一切|全部|は|も)*\
(?:いらない|いりません|いらん|要らない|要りません|要らん|結構です|けっこうです)(?:です|から|ので|よ|わ)*$
退会(?:し?たい|希望|します|させて|手続|の方法|方法)|登録(?:を)?(?:抹消|削除)|(?:リスト|名簿)から(?:外|はず|消|削除)
(?:番号|連絡先|個人情報)(?:を|は)?(?:消し|削除し)て
(?:受け取り|受信し|もらい)たくない|興味(?:が|は)?(?:ありません|ございません|ない(?:です|$)|なし)
お?断り(?:します|いたします|致します)
迷惑(?:です|だ|メール|してい|なん|電話)|しつこい|うざい|ウザい|ウザイ|鬱陶しい|ほっとい|放っておい|構わないで
人違い|間違い電話|(?:番号|宛先)(?:が|を|の)?(?:違|ちが|間違)
# Chinese
^(?:我|请|請|麻烦|麻煩)*(?:停止|停发|停發|取消|退出|拒绝|拒絕|不需要|不要)(?:了|吧|谢谢|謝謝)*$
退订|退訂|取消订阅|取消訂閱|拒收
(?:拒绝|拒絕|停止)(?:接收|发送|發送|推送|短信|简讯|簡訊|骚扰|騷擾|打扰|打擾)
(?:不要|别|別|勿|莫|不准|不许|不許|禁止|停止|不用|无需|無需)<AGAIN>\
(?:发(?!货|票|脾|愁|火|现|生)|發(?!貨|票|脾|愁|火|現|生)|寄|推送|传短信)
(?:不要|别|別|勿|莫|不准|不许|不許|禁止|停止|不用|无需|無需)<AGAIN>\
(?:打(?:来|來|电话|電話|扰|擾|给|給|了|$)|联系|聯繫|聯絡|联络|骚扰|騷擾|烦|煩|吵)
不(?:想|愿|願|希望)(?:意)?(?:再|继续|繼續)?(?:收到|接收|接到|看到)
(?:不感|没有?|沒有?|無)(?:兴趣|興趣)
(?:再|继续|繼續)(?:发|發|打|骚扰|騷擾).{0,4}(?:投诉|投訴|举报|舉報|报警|報警)
(?:烦|煩)死|滚开|滾開|(?:骚扰|騷擾|垃圾)(?:短信|简讯|簡訊|电话|電話|信息)
(?:你|你们|你們)(?:发|發|打|找|认|認)(?:错|錯)|打错|打錯|找错人|找錯人|(?:号码|號碼)(?:不对|不對|错|錯)
"""
"""Anywhere in a text without its spaces, where it is not in ASCII: for scripts that have none."""

_REACTION = re.compile(
    r"\W*(?:liked|loved|disliked|laughed at|emphasi[sz]ed|questioned|reacted\b.{1,30}?\bto)\W*[“\"]"
    r"|\W*removed an? .{1,30}? from\W*[“\"]"
    r"|\W*(?:a aimé|j['’]aime|le gustó|gefällt|curtiu)\W*[“\"«„]"
    r"|[^\w“\"]{1,12}\bto\W*[“\"]"
    r"|[“「\"].{8,}[”」\"]\W{0,4}(?:に|を).{1,20}$",
    re.IGNORECASE | re.DOTALL,
)
"""A phone tells by a text that its owner put a heart to ours, and quotes ours, STOP and all."""

_APOSTROPHES = "'’‘ʼ`´"


def _any_of(table: str) -> re.Pattern[str]:
    """One of a table's lines."""
    lines = re.sub(r"<([A-Z]+)>", lambda part: _PARTS[part[1]], table.replace("\\\n", "")).splitlines()
    return re.compile("|".join(f"(?:{line})" for line in lines if line and not line.startswith("#")))


_HARMLESS, _SAYS_STOP = _any_of(HARMLESS), _any_of(SAYS_STOP)
_HARMLESS_SOLIDLY, _SAYS_STOP_SOLIDLY = _any_of(HARMLESS_SOLIDLY), _any_of(SAYS_STOP_SOLIDLY)
_COURTEOUS = re.compile(rf"^(?:(?:{COURTESIES}) )+|(?: (?:{COURTESIES}))+$")


def wish_of(text: str) -> Wish | None:
    """What a person wants who answers so; None: it cannot be told."""
    text = unicodedata.normalize("NFKC", text[:LONGEST])
    if _REACTION.match(text):
        return None
    said = " ".join("".join(map(_letter, text.casefold())).split())
    if said in START:
        return Wish.START
    bare = _COURTEOUS.sub("", said)
    word = bare.replace(" ", "")
    if word in STOP or _says_stop(bare, said.replace(" ", "")):
        return Wish.STOP
    return Wish.HELP if word in HELP else None


def _says_stop(said: str, solid: str) -> bool:
    """Whether a stop is anywhere in it."""
    if _SAYS_STOP.search(_HARMLESS.sub(" ", said)):
        return True
    return not solid.isascii() and bool(_SAYS_STOP_SOLIDLY.search(_HARMLESS_SOLIDLY.sub("", solid)))


def _letter(character: str) -> str:
    """As it counts: Latin letters without accents, nothing for what joins letters, a space for all that is none."""
    if character.isalnum():
        base = unicodedata.normalize("NFD", character)[0]
        return base if base.isascii() else character
    if character in _APOSTROPHES or unicodedata.category(character) in {"Cf", "Mn"}:
        return ""
    return " "
