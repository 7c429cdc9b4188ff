"""Recurrent encoder–decoders, with and without attention: what they are, learn and say."""

from attn_jax.models.bahdanau_decoder import BahdanauDecoder as BahdanauDecoder
from attn_jax.models.bahdanau_decoder import MaxoutReadout as MaxoutReadout
from attn_jax.models.beam import Beams as Beams
from attn_jax.models.beam import beam_search as beam_search
from attn_jax.models.beam import search as search
from attn_jax.models.cells import GRU as GRU
from attn_jax.models.cells import LSTM as LSTM
from attn_jax.models.cells import GatedUnit as GatedUnit
from attn_jax.models.config import EncoderDecoderConfig as EncoderDecoderConfig
from attn_jax.models.encoder import Encoder as Encoder
from attn_jax.models.encoder_decoder import EncoderDecoder as EncoderDecoder
from attn_jax.models.greedy import greedy_search as greedy_search
from attn_jax.models.ids import BOS as BOS
from attn_jax.models.ids import EOS as EOS
from attn_jax.models.ids import PAD as PAD
from attn_jax.models.ids import UNK as UNK
from attn_jax.models.loss import Batch as Batch
from attn_jax.models.loss import decoder_inputs as decoder_inputs
from attn_jax.models.loss import token_losses as token_losses
from attn_jax.models.loss import translation_loss as translation_loss
from attn_jax.models.luong_decoder import LuongDecoder as LuongDecoder
from attn_jax.models.records import Memory as Memory
from attn_jax.models.records import Step as Step
from attn_jax.models.trace import Trace as Trace
from attn_jax.models.trace import force as force
