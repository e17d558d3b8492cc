"""Every table, so that the metadata is whole wherever it is needed."""

from xfleet_controller.audit import models as audit
from xfleet_controller.auth import models as auth
from xfleet_controller.bot import models as bot
from xfleet_controller.clients import models as clients
from xfleet_controller.fleet import models as fleet
from xfleet_controller.inbounds import models as inbounds
from xfleet_controller.servers import models as servers
from xfleet_controller.tables import Base
from xfleet_controller.tasks import models as tasks
from xfleet_controller.traffic import models as traffic

METADATA = Base.metadata

__all__ = ["METADATA", "audit", "auth", "bot", "clients", "fleet", "inbounds", "servers", "tasks", "traffic"]
