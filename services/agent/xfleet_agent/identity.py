"""Identity: who this agent is, kept in one file of mode 0600, and the manifest it believes."""

from pathlib import Path

import msgspec

from xfleet_contracts import codec, subjects
from xfleet_contracts.enrollment import AgentIdentity, EnrollAnswer, Manifest, SignedManifest
from xfleet_contracts.errors import Refusal
from xfleet_runtime.broker import Credentials
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.keys.signing import open_manifest, trusted_keys

FILE_NAME = "identity.json"


class OlderManifest(Refusal):
    """A manifest that does not replace the one we have."""

    code = "older_manifest"
    status = 409
    message = "The agent already has this manifest or a newer one."


class Identity:
    """The identity in use."""

    def __init__(self, path: Path, identity: AgentIdentity) -> None:
        self._path = path
        self.data = identity
        try:
            self.manifest = open_manifest(identity.root_public_key, identity.manifest)
        except Refusal as refusal:
            raise Unusable(f"{path} is not usable: {refusal.text} Enroll this agent again.") from refusal

    @property
    def sid(self) -> str:
        """This server's name on the bus."""
        return self.data.sid

    def trusted(self) -> dict[str, bytes]:
        """The keys whose commands are obeyed."""
        return trusted_keys(self.manifest)

    def credentials(self) -> Credentials:
        """What the broker link needs."""
        return credentials_of(self.data, self.manifest)

    def accept_manifest(self, signed: SignedManifest) -> Manifest:
        """Takes a newer manifest, durably. Raises `OlderManifest` or `ManifestUntrusted`."""
        manifest = open_manifest(self.data.root_public_key, signed)
        if manifest.serial <= self.manifest.serial:
            raise OlderManifest(serial=self.manifest.serial)
        self.save(msgspec.structs.replace(self.data, manifest=signed))
        return manifest

    def learn(self, file: Path) -> None:
        """Takes the manifest in this file if it is newer: the broker may have moved while nobody could tell us.

        Raises `Unusable` when the file cannot be read or is not of our fleet.
        """
        try:
            self.accept_manifest(codec.decode(file.read_bytes(), SignedManifest))
        except OlderManifest:
            return
        except OSError as error:
            raise Unusable(f"Cannot read the manifest {file}: {error.strerror}. Check --manifest-file.") from error
        except Refusal as refusal:
            raise Unusable(f"The manifest {file} is not usable: {refusal.text} Enroll this agent again.") from refusal

    def renewed(self, answer: EnrollAnswer) -> AgentIdentity:
        """This identity with new credentials for the same keys, and the manifest if it is newer; nothing is stored.

        Raises `Refusal` or `Unusable` for an answer that is not for us.
        """
        manifest = open_manifest(self.data.root_public_key, answer.manifest)
        signed = answer.manifest if manifest.serial > self.manifest.serial else self.data.manifest
        renewed = msgspec.structs.replace(self.data, jwt=answer.jwt, cert_pem=answer.cert_pem, manifest=signed)
        credentials_of(renewed, self.manifest).check()
        return renewed

    def save(self, identity: AgentIdentity) -> None:
        """Makes this the identity, durably."""
        write_private(self._path, codec.canonical(identity))
        self.data = identity
        self.manifest = open_manifest(identity.root_public_key, identity.manifest)


def credentials_of(identity: AgentIdentity, manifest: Manifest) -> Credentials:
    """The broker credentials inside an identity."""
    return Credentials(
        urls=manifest.broker_urls,
        ca_pem=manifest.ca_pem,
        cert_pem=identity.cert_pem,
        key_pem=identity.key_pem,
        jwt=identity.jwt,
        seed=identity.nkey_seed,
        tls_name=manifest.tls_name,
        inbox_prefix=subjects.agent_inbox(identity.sid),
    )


def find_identity(state_dir: Path) -> Identity | None:
    """The identity in this directory, or None when it was never enrolled. Raises `Unusable` for a broken file."""
    path = state_dir / FILE_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"Cannot read {path}: {error.strerror}. Run the agent as the user that owns it.") from error
    try:
        data = msgspec.json.decode(raw, type=AgentIdentity)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(f"{path} is damaged ({error}). Remove it and enroll this agent again.") from error
    identity = Identity(path, data)
    identity.credentials().check()
    return identity
