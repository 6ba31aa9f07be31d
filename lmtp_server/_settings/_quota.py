"""The table `[quota]`: what users may hold.

The invariant: the values make a policy.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mailstore import QuotaPolicy


class QuotaWarningSettings(BaseModel):
    """A program to run when a threshold is crossed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: str
    command: Annotated[list[str], Field(min_length=1)]


class QuotaSettings(BaseModel):
    """Values of Dovecot 2.3's quota settings, without `quota_` in front."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rules: list[str] = []
    """The first is Dovecot's `quota_rule`, the second `quota_rule2`, and so on: that of a user
    replaces the one with its number."""
    grace: str = "10%"
    max_mail_size: str = "0"
    full_tempfail: bool = False
    exceeded_message: str = "Quota exceeded (mailbox for user is full)"
    warnings: list[QuotaWarningSettings] = []

    @model_validator(mode="after")
    def _check(self) -> "QuotaSettings":
        self.policy(tuple(self.rules))
        return self

    def policy(self, rules: tuple[str, ...]) -> QuotaPolicy:
        """The policy of a user with these rules. Raises ValueError."""
        return QuotaPolicy.parse(
            *rules,
            grace=self.grace,
            mail_size=self.max_mail_size,
            warnings=[(warning.at, warning.command) for warning in self.warnings],
            full_tempfail=self.full_tempfail,
            exceeded_message=self.exceeded_message,
        )

    @property
    def fields(self) -> dict[str, str]:
        """The rules as userdb fields."""
        return {
            f"quota_rule{number + 1 if number else ''}": rule
            for number, rule in enumerate(self.rules)
        }
