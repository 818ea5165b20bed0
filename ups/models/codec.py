"""The frozen codec: physical fields to standardised latents and back."""

from torch import Tensor, nn

from ups.models.autoencoder import Autoencoder


class Codec(nn.Module):
    """A trained autoencoder with the statistics of the train split; what a latent *means*.

    Latents of two codecs are unrelated, so the codec travels with the cache that it wrote, and every model
    trained on that cache is used with it.
    """

    field_mean: Tensor
    field_deviation: Tensor
    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(
        self,
        autoencoder: Autoencoder,
        field_mean: Tensor,
        field_deviation: Tensor,
        latent_mean: Tensor,
        latent_deviation: Tensor,
    ) -> None:
        """Statistics are per channel: fields [C] in physical units, latents [d]."""
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("field_mean", field_mean)
        self.register_buffer("field_deviation", field_deviation)
        self.register_buffer("latent_mean", latent_mean)
        self.register_buffer("latent_deviation", latent_deviation)
        self.requires_grad_(False)

    def normalise(self, fields: Tensor) -> Tensor:
        """Physical fields [..., C] to zero mean and unit deviation over the train split."""
        return (fields - self.field_mean) / self.field_deviation

    def denormalise(self, fields: Tensor) -> Tensor:
        return fields * self.field_deviation + self.field_mean

    def encode(self, fields: Tensor) -> Tensor:
        """Physical fields [B, *grid, C] to standardised latents [B, K, d]."""
        return (self.autoencoder.encoder(self.normalise(fields)) - self.latent_mean) / self.latent_deviation

    def decode_normalised(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Standardised latents [B, K, d] at coordinates [Q, axes] to normalised fields [B, Q, C]."""
        return self.autoencoder.decoder(latents * self.latent_deviation + self.latent_mean, coordinates)

    def decode(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Standardised latents [B, K, d] at coordinates [Q, axes] to physical fields [B, Q, C]."""
        return self.denormalise(self.decode_normalised(latents, coordinates))
