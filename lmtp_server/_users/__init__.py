"""Users: from a recipient to the mailbox that holds its mail, by way of user directories.

`Users` finds who a recipient is; a `Directory` asks drivers such as `StaticUsers`, `PasswdFile` and
`SystemUsers` in their order. A driver answers at once (`recall`) or in a job (`lookup`).
"""

from ._cache import Cached
from ._directory import Directory, Rule, Skip, Userdb
from ._entry import DirectoryError, Driver, Fields, NotFound, UserEntry, make_entry
from ._names import CHARACTERS, NameRules
from ._passwd_file import PasswdFile
from ._static import StaticUsers
from ._system import SystemUsers
from ._template import MailTemplate
from ._users import Found, Located, UserError, Users, ValidIds
from ._variables import Names, Text, Variable, Vocabulary, path_name, read_variables

__all__ = [
    "CHARACTERS",
    "Cached",
    "Directory",
    "DirectoryError",
    "Driver",
    "Fields",
    "Found",
    "Located",
    "MailTemplate",
    "NameRules",
    "Names",
    "NotFound",
    "PasswdFile",
    "Rule",
    "Skip",
    "StaticUsers",
    "SystemUsers",
    "Text",
    "UserEntry",
    "UserError",
    "Userdb",
    "Users",
    "ValidIds",
    "Variable",
    "Vocabulary",
    "make_entry",
    "path_name",
    "read_variables",
]
