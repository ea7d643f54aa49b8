#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/model/linear.hpp"
#include "rometrace/model/matrix_change.hpp"
#include "rometrace/model/mlp.hpp"

// Letters used for shapes everywhere: N noise draws, B rows of a batch, T tokens, L layers, D width, H heads,
// V vocabulary, F width of the MLP; and E width of the token embeddings (D but for OPT-350m), A = H d width of what
// attention mixes and K = 2 H' d of keys and values (d width of a head, H' heads of keys and values: D and 2 D in
// GPT-2).

namespace rometrace {

/// A place in the forward pass whose value can be read and changed.
enum class Site {
  kEmbedding,   ///< token embedding, before positions are added; once, with layer 0
  kMixed,       ///< values mixed by a layer's attention, heads side by side, before the output projection
  kAttn,        ///< what a layer's attention adds to the stream
  kMlpHidden,   ///< what the MLP's last matrix reads: after the activation, and after the gate where there is one; not
                ///< of a mixture of experts
  kMlpProduct,  ///< what that matrix gives, with its bias, or a mixture; kMlp but where outputs are normalised or
                ///< scaled
  kMlp,         ///< what a layer's MLP adds to the stream
  kState,       ///< output of a layer: the residual stream after both
};

/// Called at each site with the value there, [B, T, D] (E for kEmbedding, A for kMixed, F for kMlpHidden); what it
/// writes into the value in place is what the rest of the forward pass sees.
using Tap = std::function<void(Site site, std::int64_t layer, at::Tensor& value)>;

/// Which keys each query of a layer sees: bool [T, T], queries by keys, within what is causal; undefined: all of that.
using AttentionMask = std::function<at::Tensor(std::int64_t layer)>;

class NormLayer {
 public:
  /// `weight` [D], or [heads, D] of one for each head, with 1 added where the norm says so, and `bias` [D]; each may be
  /// undefined.
  NormLayer(Norm norm, at::Tensor weight, at::Tensor bias);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., D] -> [..., D]; [..., heads, D] where each has a weight

 private:
  Norm norm_;
  at::Tensor weight_;
  at::Tensor bias_;
};

/// Causal self-attention, in pieces for engines that mix rows of different runs, and as a whole.
class Attention {
 public:
  struct Parts {
    std::shared_ptr<const Linear> inputs;                   ///< D -> two parts: queries (A), keys and values (K)
    std::shared_ptr<const Linear> projection;               ///< A -> D
    std::shared_ptr<const NormLayer> query_norm, key_norm;  ///< as DecoderConfig::head_norms says, or none
    at::Tensor frequencies;  ///< [pairs], of rotary positions in the stream's dtype, or undefined
    at::Tensor sinks;        ///< as sinks() gives them
  };
  Attention(const DecoderConfig& config, std::int64_t layer, Parts parts);

  /// [rows, D] -> [rows, A], heads side by side. `positions` [rows], int64: where each row stands in its text;
  /// needed where turns() holds.
  at::Tensor queries(const at::Tensor& x, const at::Tensor& positions = {}) const;
  /// Likewise [rows, D] -> [rows, K]: keys of all heads, then values.
  at::Tensor keys_values(const at::Tensor& x, const at::Tensor& positions = {}) const;
  at::Tensor project(const at::Tensor& mixed) const;  ///< values mixed by the softmax [..., A] -> output [..., D]

  bool turns() const { return parts_.frequencies.defined(); }  ///< whether queries and keys depend on their positions
  std::int64_t heads() const { return heads_; }
  std::int64_t kv_heads() const { return kv_heads_; }  ///< head h reads keys and values h / (heads() / kv_heads())
  std::int64_t head_width() const { return head_width_; }
  double scale() const { return scale_; }          ///< of the scores, before the softmax
  double softcap() const { return softcap_; }      ///< c tanh(score / c) of the scaled scores where it is above 0
  std::int64_t window() const { return window_; }  ///< positions that a query sees, its own among them; 0: all
  /// Scores, [H] in the stream's dtype, of a key without a value that every query sees as well; or undefined.
  const at::Tensor& sinks() const { return parts_.sinks; }
  /// What is added to the scaled scores of keys at positions 0 .. length - 1, [H, length] like `like`; undefined where
  /// nothing is.
  at::Tensor biases(std::int64_t length, const at::Tensor& like) const;

  /// All positions of each row of a batch, to what project() takes: [B, T, D] -> [B, T, A]. `mask` as AttentionMask
  /// gives it.
  at::Tensor mix(const at::Tensor& x, const at::Tensor& mask = {}) const;
  /// The same of queries [B T, A] and keys and values [B T, K], in the stream's dtype, as the softmax is: [B, T, A].
  at::Tensor mix_rows(const at::Tensor& queries, const at::Tensor& keys_values, std::int64_t B,
                      const at::Tensor& mask = {}) const;

  void prepare() const;

 private:
  at::Tensor product(const at::Tensor& x, std::size_t part) const;
  at::Tensor as_heads(const at::Tensor& rows, std::int64_t heads, const std::shared_ptr<const NormLayer>& norm,
                      const at::Tensor& positions) const;

  std::int64_t heads_, kv_heads_, head_width_;
  double scale_, softcap_, clip_;
  std::int64_t window_;
  HeadNorms norms_;
  std::optional<Alibi> alibi_;
  Rotary rotary_;
  Parts parts_;
};

/// One layer: attention and MLP, put together in one of the orders of BlockOrder.
class Block {
 public:
  struct Parts {
    std::shared_ptr<const NormLayer> norm_1, norm_2;       ///< norm_2 may be norm_1 (GPT-J); or none (OLMo 2)
    std::shared_ptr<const NormLayer> attn_norm, mlp_norm;  ///< of the outputs (Gemma 2, 3), or none
    std::shared_ptr<const Attention> attn;
    std::shared_ptr<const Mlp> mlp;
    std::shared_ptr<const Mixture> mixture;  ///< in place of `mlp`, or none
  };
  Block(const DecoderConfig& config, std::int64_t layer, Parts parts);

  const Attention& attn() const { return *parts_.attn; }
  const Mlp& mlp() const { return *parts_.mlp; }              ///< of a layer that is no mixture
  const Mixture& mixture() const { return *parts_.mixture; }  ///< of one that is
  bool is_mixture() const { return parts_.mixture != nullptr; }
  BlockOrder order() const { return order_; }

  /// What attention reads of the stream that enters the layer: [..., D] -> [..., D].
  at::Tensor attn_input(const at::Tensor& x) const;
  /// What attention adds to the stream: mixed [..., A] -> [..., D].
  at::Tensor attn_output(const at::Tensor& mixed) const;
  /// What the MLP adds, [..., D] -> [..., D]. It reads the stream after attention or, where the order is kParallel, the
  /// one that enters the layer.
  at::Tensor mlp_output(const at::Tensor& x) const;
  /// The same in two steps: what the MLP's last matrix reads, [..., D] -> [..., F], where it is no mixture, and of that
  /// matrix's product [..., D] what the MLP adds.
  at::Tensor mlp_hidden(const at::Tensor& x) const;
  at::Tensor mlp_output_of(const at::Tensor& product) const;
  /// The stream that goes on, once attention's or the MLP's output has been added: itself but for kPostNorm.
  at::Tensor after_attn(const at::Tensor& x) const;
  at::Tensor after_mlp(const at::Tensor& x) const;
  /// The layer's output of streams that enter it, and what attention adds to them; both [..., D].
  at::Tensor after(const at::Tensor& x, const at::Tensor& attn) const;

  at::Tensor forward(at::Tensor x, const Tap& tap, const AttentionMask& mask) const;  ///< [B, T, D] -> [B, T, D]

  /// Reads the layer's weights, and packs them, now: but for experts, which are read when rows first come to them.
  void prepare() const;
  void prepare_experts() const;  ///< these, too

 private:
  at::Tensor mlp_input(const at::Tensor& x) const;
  at::Tensor added(const at::Tensor& product, const std::shared_ptr<const NormLayer>& norm) const;
  bool changes_outputs(const std::shared_ptr<const NormLayer>& norm) const { return norm || output_scale_ != 1; }

  std::int64_t layer_;
  BlockOrder order_;
  double output_scale_;
  Parts parts_;
};

/// The scores of every token of the vocabulary, in slices.
class Head {
 public:
  struct Slice {
    std::function<std::shared_ptr<const Linear>()> linear;  ///< E -> tokens of the slice
    std::int64_t width = 0;
  };
  Head(std::vector<Slice> slices, double scale, double softcap)
      : slices_(std::move(slices)), scale_(scale), softcap_(softcap) {}

  std::size_t parts() const { return slices_.size(); }
  at::Tensor logits(const at::Tensor& hidden, std::size_t part) const;  ///< [..., E] -> [..., width of the slice], new
  /// The scaled product alone, without bias and softcap.
  at::Tensor product(const at::Tensor& hidden, std::size_t part) const;
  void prepare() const;  ///< reads the weights, and packs them, now

 private:
  std::vector<Slice> slices_;
  double scale_, softcap_;
};

class LayerStream;
class Workers;

/// What backwards multiply with.
enum class Transposes {
  kPacked,  ///< second copies of packed weights, for many backwards
  kNone,    ///< the weights as they lie in the file: no second copy of any
};

/// How a model is loaded.
struct LoadOptions {
  at::ScalarType dtype =
      at::kFloat;  ///< of products; the residual stream, norms, softmax and head are float64 for it, else float32
  at::Device device = at::kCPU;
  Products products = Products::kFast;
  /// Bytes that weights may take; where they need more, layers are read from the files each time that they are used
  /// and let go again, two of them held at a time. None: all are kept.
  std::optional<std::int64_t> memory;
  /// Whether what is left of that memory, up to 0.7 of the weights or half a gigabyte, may go to transposes, which make
  /// backwards faster (see Linear). Beyond that, and where layers are streamed, they use the weights as they lie.
  Transposes transposes = Transposes::kPacked;
  /// Asked whether bfloat16 is to be refused on the CPU.
  Processor processor = Processor::here();
  /// Edits of the files' matrices, laid over them in this order as changed() has it.
  std::vector<MatrixChange> changes = {};
  /// Asked whenever weights are read for a while: by load(), when a matrix is first used and, where layers are
  /// streamed, before each. Interrupted is thrown there.
  std::stop_token stop = {};
};

/// A decoder with its language-model head, for inference. Immutable once loaded; safe to use from several threads, but
/// one at a time where layers are streamed: others would have their layers read again and again.
class Decoder {
 public:
  /// Loads a folder in Hugging Face layout, or a GGUF file: config as config_of_model() reads it and weights as
  /// Checkpoint does, whose names and shapes are checked, and the changes as changed() does; matrices are read when
  /// they are first used, on a GPU now. They may be views of the mapped file; those that are packed (see Linear) are
  /// copied, and the file's pages then let go, so that both are never held whole. Buffers such as attn.bias are
  /// ignored. Throws Error, also for a dtype that the device cannot multiply in (float16 on a CPU, bfloat16 on an old
  /// one); Interrupted.
  static std::shared_ptr<const Decoder> load(const std::filesystem::path& model, const LoadOptions& options);
  static std::shared_ptr<const Decoder> load(const std::filesystem::path& model, at::ScalarType dtype = at::kFloat,
                                             at::Device device = at::kCPU, Products products = Products::kFast) {
    return load(model, LoadOptions{dtype, device, products, std::nullopt});
  }
  ~Decoder();

  /// The same model with more changes of its matrices, as changed() makes them, after those that it has. All that is
  /// not changed is shared: what has been read and packed of it stays so in both. Throws Error as changed() does.
  std::shared_ptr<const Decoder> with_changes(std::span<const MatrixChange> changes) const;

  const DecoderConfig& config() const { return config_; }
  at::ScalarType dtype() const { return options_.dtype; }
  at::ScalarType stream_dtype() const { return options_.dtype == at::kDouble ? at::kDouble : at::kFloat; }
  at::Device device() const { return options_.device; }
  std::int64_t parameter_count() const;  ///< a tied head is counted once
  const std::vector<std::filesystem::path>& weight_files() const;

  const Checkpoint& checkpoint() const { return *checkpoint_; }  ///< the files with LoadOptions::changes over them
  MatrixPlace mlp_output_matrix(std::int64_t layer) const;       ///< what leads out of a layer's MLP, 0 <= layer < L

  /// What neurons of a layer's MLP give for a value of 1: their rows of that matrix, rounded to dtype(), in the
  /// stream's, [neurons, D]. Read from the files, since packed weights cannot be: throws Error as Checkpoint does.
  at::Tensor mlp_output_rows(std::int64_t layer, std::span<const std::int64_t> neurons) const;
  /// What such rows add to the logits on the straight way: times the weight of the norm of MLP outputs where there is
  /// one (Gemma 2, 3) and the scale of outputs (Granite), then times the unembedding and the scale of the logits,
  /// without the final norm, the head's bias or its softcap: [..., D] -> [..., V].
  at::Tensor direct_logits(std::int64_t layer, const at::Tensor& rows) const;

  bool streamed() const { return stream_ != nullptr; }  ///< whether layers are read each time that they are used
  /// Whether several threads may each run it: on a CPU, with layers that are held (streamed ones have one reader).
  bool serves_several() const { return !streamed() && device().is_cpu(); }
  /// Bytes of weights in memory, at most: matrices, what reading one takes for a moment, embeddings of positions.
  std::int64_t held_bytes() const;
  std::int64_t all_bytes() const;  ///< likewise, if none were streamed

  /// A layer. Where layers are streamed it is read now, unless it is the one that was asked for last or the one that
  /// follows (which is read ahead); it is let go when nobody holds it. Nobody may change the files meanwhile.
  std::shared_ptr<const Block> block(std::int64_t layer) const;

  /// Reads all weights, and packs them, now, layers shared among workers. Nothing where layers are streamed, and on a
  /// GPU, which has them already.
  void prepare(Workers& workers) const;

  /// Throws Error unless 1 <= T <= longest_prompt().
  void check_length(std::int64_t T) const;

  /// Runs `rows` copies of one prompt. `token_ids` [T], 1 <= T <= longest_prompt(), each below V (throws Error).
  /// Returns what the head reads, [B, T, E].
  at::Tensor forward(std::span<const std::int32_t> token_ids, std::int64_t rows, const Tap& tap = {},
                     const AttentionMask& mask = {}) const;

  /// Runs B prompts of one length T side by side: `token_ids` [B, T], row by row; B and T at least 1, T <=
  /// longest_prompt(), ids below V (throws Error). Returns what the head reads at the last `last` positions,
  /// [B, last, E]: what `logits` turns into the scores of the next token.
  at::Tensor forward_prompts(std::span<const std::int32_t> token_ids, std::int64_t T, std::int64_t last = 1,
                             const Tap& tap = {}) const;

  /// Token embeddings of `token_ids` [T] -> [T, E], scaled where the family does that. Throws Error for an id outside
  /// the vocabulary.
  at::Tensor embed(std::span<const std::int32_t> token_ids) const;
  /// The stream that enters the first layer: embeddings [..., T, E] of a text's T tokens from position `first` on,
  /// normalised or scaled where the family does that -> [..., T, D].
  at::Tensor enter(const at::Tensor& embeddings, std::int64_t first = 0) const;
  /// The final norm, and what follows it before the head: [..., D] -> [..., E].
  at::Tensor leave(const at::Tensor& x) const;

  /// Scores of every token of the vocabulary: what leave() gives [..., E] -> [..., V].
  at::Tensor logits(const at::Tensor& hidden) const;
  const Head& head() const { return *head_; }

 private:
  class Loader;
  Decoder(DecoderConfig config, std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions& options);
  Decoder(const Decoder& other, std::shared_ptr<const Checkpoint> checkpoint, std::span<const MatrixChange> changes);

  void stream_layers();
  std::int64_t layer_bytes(std::int64_t layer) const;    // of a layer's matrices
  std::int64_t experts_bytes(std::int64_t layer) const;  // of those, the experts'
  std::int64_t token_bytes() const;                      // of a token's row of the head
  std::int64_t other_bytes() const;
  at::Tensor run_layers(at::Tensor embeddings, const Tap& tap, const AttentionMask& mask) const;

  DecoderConfig config_;
  LoadOptions options_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<const Loader> loader_;
  bool tied_ = true;
  at::Tensor positions_;                         // [learned_positions, D] or undefined
  std::shared_ptr<const Linear> enter_, leave_;  // E -> D and D -> E, or none
  std::shared_ptr<const Head> head_;
  std::vector<std::shared_ptr<const Block>> blocks_;  // none where they are streamed
  std::unique_ptr<LayerStream> stream_;
  std::shared_ptr<const NormLayer> embedding_norm_, final_norm_;
};

}  // namespace rometrace
