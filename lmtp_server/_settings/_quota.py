"""The table `[quota]`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailstore import QuotaPolicy, QuotaRules, QuotaWarning

from ._table import About, Allowed, Table, TableFault
from ._types import Flag, ReplyText, SecretText, Size, Text, Timeout, count

_DEFAULT = QuotaPolicy.parse()


def _rules(rules: list[str]) -> list[str]:
    QuotaRules(*rules)
    return rules


def _grace(text: str) -> str:
    QuotaPolicy.parse(grace=text)
    return text


class QuotaWarningTable(Table):
    """A program to run when the usage crosses a threshold; the first that applies is run."""

    at: Annotated[
        str,
        Allowed("such as 'storage=95%' when it is reached, '-storage=95%' when it is left"),
        About(meaning="the threshold", dovecot=("quota_warning",)),
    ]
    command: Annotated[
        list[str],
        Field(min_length=1),
        Allowed("a list: the program and its arguments"),
        About(meaning="what is run, without a shell"),
    ]

    @model_validator(mode="after")
    def _together(self) -> Self:
        try:
            QuotaWarning.parse(self.at, self.command)
        except ValueError as error:
            raise TableFault("at", str(error)) from None
        return self


class QuotaTable(Table):
    """What users may hold. Those for whom no rules are set, here or by a userdb, have no limit."""

    rules: Annotated[
        list[str],
        AfterValidator(_rules),
        Allowed("a list of rules such as '*:storage=1G:messages=1000', 'Spam:ignore'"),
        About(
            meaning="the limits; the first is `quota_rule`, the second `quota_rule2`, ...: that"
            " of a userdb replaces the one with its number",
            dovecot=("quota_rule", "quota_storage_size"),
        ),
    ] = Field(default_factory=list)
    grace: Annotated[
        str,
        AfterValidator(_grace),
        Allowed("a size such as '10M' or a percentage such as '10%'"),
        About(
            meaning="how far the message that fills the mailbox may go beyond",
            dovecot=("quota_grace", "quota_storage_grace"),
        ),
    ] = "10%"
    max_mail_size: Annotated[
        Size,
        About(
            meaning="octets of the largest message, 0 for any",
            dovecot=("quota_max_mail_size", "quota_mail_size"),
        ),
    ] = 0
    mailbox_count: Annotated[
        int,
        *count(0, 1 << 31),
        About(
            meaning="mailboxes of a user, beyond which deliveries make none; 0: any",
            dovecot=("quota_mailbox_count",),
        ),
    ] = 0
    full_tempfail: Annotated[
        Flag,
        About(
            meaning="answer a full mailbox 452, for the client to try again, in place of 552",
            dovecot=("quota_full_tempfail",),
        ),
    ] = False
    exceeded_message: Annotated[
        ReplyText,
        About(meaning="the text of that reply", dovecot=("quota_exceeded_message",)),
    ] = _DEFAULT.exceeded_message
    backend: Annotated[
        Literal["maildirsize", "redis"],
        Allowed("maildirsize or redis"),
        About(
            meaning="where is counted: in each Maildir, or in Redis or Valkey",
            dovecot=("quota = maildir:", "dict:...:redis:", "quota_driver"),
        ),
    ] = "maildirsize"
    url: Annotated[
        SecretText | None,
        About(meaning="of the Redis server: `redis://`, `rediss://` or `unix://`"),
    ] = None
    prefix: Annotated[Text, About(meaning="of the keys in Redis")] = ""
    timeout: Annotated[
        Timeout, About(meaning="for an answer of Redis; without one mail is answered 451")
    ] = 5.0
    warnings: Annotated[
        list[QuotaWarningTable],
        Allowed("tables [[quota.warnings]]"),
        About(meaning="programs to run at thresholds", dovecot=("quota_warning",)),
    ] = Field(default_factory=list)

    def policy(self, rules: tuple[str, ...]) -> QuotaPolicy:
        """The policy of a user with these rules. Raises ValueError."""
        return QuotaPolicy.parse(
            *rules,
            grace=self.grace,
            mail_size=str(self.max_mail_size),
            mailbox_count=self.mailbox_count,
            warnings=[(warning.at, warning.command) for warning in self.warnings],
            full_tempfail=self.full_tempfail,
            exceeded_message=self.exceeded_message,
        )

    @property
    def fields(self) -> dict[str, str]:
        """The rules as userdb fields: the second is `quota_rule2`, and so on."""
        return {
            f"quota_rule{number + 1 if number else ''}": rule
            for number, rule in enumerate(self.rules)
        }

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.backend == "redis" and self.url is None:
            raise TableFault("backend", "redis needs quota.url, such as redis://127.0.0.1/0")
        if self.url is not None and not self.url.reveal().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise TableFault("url", "it begins with none of redis://, rediss:// and unix://")
        return self
