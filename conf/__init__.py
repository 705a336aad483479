"""The configuration's files as a package, for any Hydra application: ``hydra.searchpath: [pkg://keisei_lightning.conf]``.

The folder is ``keisei_lightning/conf``: a link to this one in a checkout, a copy of it in a wheel. Hydra imports the
package before it reads a file of it; by then the schemas that the files start from are registered.
"""

from keisei_lightning.config.schemas import register_configs

__all__: list[str] = []

register_configs()
