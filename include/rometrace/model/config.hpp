#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// Activation functions, by transformers' names (several names may mean the same function).
enum class Activation {
  kGeluTanh,
  kGeluTanhRounded,  ///< with 0.79788456 for the square root of 2 / pi: BLOOM
  kGeluErf,
  kGeluQuick,
  kRelu,
  kReluSquared,
  kSilu,
  kTanh,
  kSigmoid
};

/// The families whose checkpoints are understood; a family is what config.json calls model_type.
enum class Family {
  kGpt2,
  kGptJ,
  kGptNeo,
  kGptNeoX,
  kGptBigCode,
  kOpt,
  kBloom,
  kMpt,
  kFalcon,
  kLlama,
  kMistral,
  kQwen2,
  kQwen3,
  kGemma,
  kGemma2,
  kGemma3,
  kPhi,
  kPhi3,
  kOlmo,
  kOlmo2,
  kOlmo3,
  kStableLm,
  kStarcoder2,
  kSmolLm3,
  kGranite,
  kCohere,
  kCohere2,
  kGlm4,
  kNemotron,
  kMixtral,
  kQwen2Moe,
  kQwen3Moe,
  kOlmoe,
  kGraniteMoe,
  kPhimoe,
  kGptOss,
};

/// How attention and MLP of a layer are put together.
enum class BlockOrder {
  kSequential,  ///< x + attention(norm(x)), then x + mlp(norm(x)): GPT-2, Llama and most others
  kParallel,    ///< x + attention(norm(x)) + mlp(norm(x)), both of the stream that enters the layer: GPT-J, GPT-NeoX
  kPostNorm,    ///< norm(x + attention(x)), then norm(x + mlp(x)): OPT-350m
};

/// How a stream is normalised.
struct Norm {
  enum class Type {
    kLayerNorm,  ///< mean and variance; weight and bias
    kRms,        ///< root of the mean square (arXiv 1910.07467); weight
  };
  Type type = Type::kLayerNorm;
  double epsilon = 1e-5;
  bool affine = true;   ///< whether the file has weights for it
  bool bias = true;     ///< of kLayerNorm: and biases
  bool offset = false;  ///< the gain is 1 + weight: Gemma, Nemotron
};

/// How queries and keys are normalised before they are turned, by DecoderConfig::norm.
enum class HeadNorms {
  kNone,
  kShared,    ///< each head by itself, all with the same weights: Qwen 3, Gemma 3, Phi
  kOwn,       ///< each head by itself, with weights of its own and without biases: StableLM 2, Cohere
  kTogether,  ///< all heads of a position as one vector: OLMo 2
};

/// Biases of attention's scores that grow with a key's position (arXiv 2108.12409), in place of position embeddings:
/// head h adds its slope times the position. The slopes of 2^n heads are 2^(-8 i / 2^n), i from 1 on; further heads
/// have every other one of twice as many.
struct Alibi {
  bool rounded = false;  ///< slopes and biases are rounded to bfloat16, in a model of any dtype: Falcon
  double scale = 1;      ///< of the biases
  bool ends = false;     ///< these are the biases of texts of up to max_positions alone
};

/// Rotary position embedding (arXiv 2104.09864): pairs of a head's numbers are turned by angles that grow with the
/// position; pair i of `width` / 2 by theta^(-2 i / width) radians a position, which a scaling for longer texts
/// changes.
struct Rotary {
  enum class Scaling {
    kNone,
    kLinear,  ///< all angles divided by `factor`
    kLlama3,  ///< those of long wavelengths divided by `factor`, others not, with a ramp between
    kYarn,    ///< the same idea by another ramp (arXiv 2309.00071)
    kEach,    ///< each pair's divided by a factor of its own (arXiv 2402.13753, rope_freqs.weight), `divisors`
  };
  std::int64_t width = 0;  ///< numbers of a head that are turned, the first ones; even
  double theta = 10000;
  bool interleaved = false;  ///< pairs are neighbours (GPT-J); else number i and i + width / 2
  Scaling scaling = Scaling::kNone;
  double factor = 1;
  double original_positions = 0;                 ///< of the training before the scaling; kLlama3, kYarn
  double low_frequency = 1, high_frequency = 4;  ///< ends of the ramp, turns in the original positions; kLlama3
  double beta_fast = 32, beta_slow = 1;          ///< likewise; kYarn
  bool whole_pairs = true;                       ///< the ramp begins and ends at a pair; kYarn ("truncate")
  double magnitude = 1;                          ///< of the turned numbers; kYarn, kEach ("attention_factor")
  std::vector<float> divisors;                   ///< [width / 2]; kEach
  std::int64_t longest = 0;                      ///< tokens of the longest text with these angles; 0: of any

  friend bool operator==(const Rotary&, const Rotary&) = default;
};

/// What distinguishes a layer's attention from that of others.
struct LayerAttention {
  std::int64_t window = 0;  ///< positions that a query sees, its own among them; 0: all before it
  std::size_t rotary = 0;   ///< in DecoderConfig::rotary
  bool turns = true;        ///< false: its queries and keys know no positions (SmolLM3, Cohere 2)
};

/// A mixture of experts in place of a layer's MLP: a router scores the experts for each position, and some of them,
/// each an MLP of its own, are added with weights made of the scores (arXiv 1701.06538, 2101.03961).
struct Experts {
  enum class Weights {
    kOfAll,     ///< the softmax of all scores, and of it the largest: Mixtral, Qwen
    kOfChosen,  ///< the softmax of the largest scores: Granite, GPT-OSS
    kOneByOne,  ///< of each choice the softmax of those still there that are near the largest: Phi-3.5 (2409.12136)
  };
  std::int64_t count = 0;
  std::int64_t chosen = 0;  ///< for each position
  std::int64_t width = 0;   ///< F of an expert
  Weights weights = Weights::kOfAll;
  bool sums_to_one = false;       ///< kOfAll: the weights of the chosen are divided by their sum
  double nearness = 0;            ///< kOneByOne: how far below the largest, as a part of the larger of both
  bool router_bias = false;       ///< the scores have a bias
  bool microscaled = false;       ///< their matrices are MXFP4 in the files, and [out, in] (GPT-OSS)
  std::int64_t shared_width = 0;  ///< F of an expert that all positions have, times a gate of its own; 0: none (Qwen 2)
};

/// Who named a file's tensors and laid them out.
enum class TensorLayout {
  kTransformers,
  kLlamaCpp,  ///< GGUF files: matrices are [out, in] in all families
};

/// A decoder, as its config.json describes it: what all families share, and their differences as data. The sizes are at
/// least 1 and small enough that a tensor's bytes can be counted in 64 bits. The defaults are GPT-2's.
struct DecoderConfig {
  Family family = Family::kGpt2;
  std::string architecture = "GPT2LMHeadModel";  ///< as written in the file; for the record
  TensorLayout layout = TensorLayout::kTransformers;
  bool joined_inputs = false;  ///< of kLlamaCpp: queries, keys and values are one matrix, side by side

  std::int64_t vocab_size = 50257;     ///< V
  std::int64_t max_positions = 1024;   ///< tokens of the longest text that the model is made for
  std::int64_t width = 768;            ///< D
  std::int64_t embedding_width = 768;  ///< of the token embeddings and of what the head reads; D but for OPT-350m
  std::int64_t layers = 12;            ///< L
  std::int64_t heads = 12;             ///< H, of queries
  std::int64_t kv_heads = 12;          ///< of keys and values; H is a multiple of it
  std::int64_t head_width = 64;        ///< d; H d need not be D
  std::int64_t mlp_width = 4 * 768;    ///< F, of layers that are no mixtures

  Norm norm;  ///< all norms of the model
  BlockOrder order = BlockOrder::kSequential;
  bool input_norms = true;    ///< attention and MLP read the stream normalised; not in OLMo 2, 3
  bool output_norms = false;  ///< outputs of attention and MLP are normalised before they are added: Gemma 2, 3
  bool one_norm = false;      ///< attention and MLP read the same norm's output: GPT-J
  bool final_norm = true;
  bool embedding_norm = false;  ///< token embeddings are normalised as they enter the stream: BLOOM
  double output_scale = 1;      ///< of what attention and MLP add to the stream: Granite

  Activation activation = Activation::kGeluTanh;
  bool gated_mlp = false;  ///< down(activation(gate(x)) * up(x)); else out(activation(in(x)))
  double gate_limit = 0;   ///< gate(x) is kept below it, and up(x) within it, where it is above 0: GPT-OSS
  double up_offset = 0;    ///< added to up(x): GPT-OSS

  std::optional<Experts> experts;          ///< of all layers but these
  std::vector<std::int64_t> dense_layers;  ///< ascending

  std::int64_t learned_positions = 1024;  ///< rows of the position embedding, 0: none
  std::int64_t position_offset = 0;       ///< the row of the first position
  std::optional<Alibi> alibi;             ///< of all layers
  std::vector<Rotary> rotary;             ///< none, or those that layers refer to
  std::vector<LayerAttention> attention;  ///< [L]
  HeadNorms head_norms = HeadNorms::kNone;
  double query_key_value_clip = 0;  ///< queries, keys and values are kept within it where it is above 0: OLMo, MPT
  double attention_scale = 0.125;   ///< of the scores, before the softmax
  bool scale_attn_by_inverse_layer_idx = false;  ///< scores of layer l divided by l + 1 as well
  bool attention_sinks = false;                  ///< each head has a score of a key that has no value: GPT-OSS
  double attention_softcap = 0;                  ///< c tanh(score / c) where it is above 0: Gemma 2

  bool query_bias = true;       ///< products of queries, keys and values have a bias
  bool projection_bias = true;  ///< likewise that of attention's output
  bool mlp_bias = true;
  bool head_bias = false;
  double embedding_scale = 1;       ///< of token embeddings: Gemma's sqrt(D). Embeddings are corrupted after it
  double entry_scale = 1;           ///< of token embeddings as they enter the stream: Granite. Corrupted before it
  bool tie_word_embeddings = true;  ///< the head is the token embedding
  double logit_scale = 1;           ///< of the logits: Granite, Cohere
  double logit_softcap = 0;         ///< c tanh(logit / c) where it is above 0: Gemma 2

  std::vector<std::string> remarks;  ///< what a user should hear of the file: a line each, such as of unknown fields

  /// Tokens of the longest prompt: max_positions, but angles and biases can go on, as they do in transformers.
  std::int64_t longest_prompt() const;

  bool is_mixture(std::int64_t layer) const;  ///< whether its MLP is a mixture of experts

  std::int64_t mixed_width() const { return heads * head_width; }               ///< what a layer's attention mixes, H d
  std::int64_t keys_values_width() const { return 2 * kv_heads * head_width; }  ///< keys, then values, of a position
};

/// The name of a family as config.json has it, such as "gpt_neox".
std::string_view to_string(Family family);

/// Throws Error where a layer is a mixture of experts: `what` is not to be had of it ("neurons are").
void refuse_mixtures(const DecoderConfig& config, std::string_view what);

/// Reads config.json; the fields that change the computation are those that transformers reads, with its defaults,
/// second names (hidden_size, n_embd) and the forms of older files; fields that are known not to change it are ignored.
/// A remark names those that are neither. Throws Error: unreadable, not JSON, not a language model of a family above (a
/// mixture of experts, an encoder-decoder), a field of the wrong type or range, or a field that changes the computation
/// in a way not supported (named, with the value found).
DecoderConfig read_config(const std::filesystem::path& config_json);

/// The same from the file's text; `where` opens the messages.
DecoderConfig parse_config(std::string_view text, const std::string& where);

/// That of a model, given as its folder with a config.json, or as a GGUF file, whose keys say the same.
DecoderConfig config_of_model(const std::filesystem::path& model);

}  // namespace rometrace
