#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// Part of a text: `length` rows from position `first` on. Earlier positions lend their keys and values.
struct TextPart {
  std::int64_t first = 0;
  std::int64_t length = 0;
};

/// Rows of several texts that go through a layer together: products take all rows at once, attention those of texts of
/// one length. Everything is differentiable with respect to rows, not to what earlier positions lend.
class RowBatch {
 public:
  RowBatch(std::span<const TextPart> parts, at::Device device);

  std::int64_t rows() const { return rows_; }
  /// Where the rows of a text begin.
  std::int64_t begin(std::size_t text) const { return begins_[text]; }
  const at::Tensor& positions() const { return positions_; }  ///< [rows], int64, in each one's text

  /// What earlier positions lend a layer: keys and values [P, K] of each text, P its part's `first`. Laid out for
  /// attend(); none where no part has earlier positions.
  std::vector<at::Tensor> lent(const std::vector<at::Tensor>& keys_values) const;

  /// Causal attention: queries [rows, A], keys and values [rows, K], all of the stream's dtype -> [rows, A].
  at::Tensor attend(const Attention& attention, const at::Tensor& queries, const at::Tensor& keys_values,
                    std::span<const at::Tensor> lent) const;

 private:
  // Texts of one length, next to each other.
  struct Group {
    std::int64_t begin = 0, length = 0;  // rows
    std::int64_t before = 0;             // of the longest `first`; shorter ones are filled up in front
    std::vector<std::size_t> texts;
    std::vector<std::int64_t> firsts;
    mutable std::map<std::int64_t, at::Tensor> unseen;  // by window: [texts, 1, length, before + length]

    std::int64_t end() const { return before + length; }  // behind the last position of any
  };

  at::Tensor key_positions(const Group& group) const;  // [texts, before + length]; below 0: no such key
  at::Tensor unseen(const Group& group, std::int64_t window) const;

  std::int64_t rows_ = 0;
  std::vector<std::int64_t> begins_;
  std::vector<Group> groups_;
  at::Tensor positions_;
  at::Device device_;
};

/// What goes by in a layer, rows of a batch.
struct LayerRows {
  std::shared_ptr<const Block> block;
  at::Tensor keys_values;  ///< [rows, K]
  at::Tensor between;      ///< the stream that the MLP's output is added to, [rows, D]
  at::Tensor hidden;       ///< what the MLP's last matrix reads, [rows, F]
  at::Tensor product;      ///< what that matrix gives, [rows, D]
  at::Tensor state;        ///< the layer's output, [rows, D]
};

/// Takes rows of a batch that enter a layer, [rows, D], through it; `lent` as RowBatch::lent() gives it. Differentiable
/// as RowBatch is. Where rows to be `kept` are named, no others go through the MLP: all but the keys and values are then
/// of these alone.
LayerRows pass_layer(std::shared_ptr<const Block> block, const at::Tensor& x, const RowBatch& batch,
                     std::span<const at::Tensor> lent, const at::Tensor& kept = {});

/// Runs whole texts through layers [0, end), side by side, and shows each layer to `visit`. Returns the last output.
/// Throws Interrupted, Error for a text that the model does not take.
at::Tensor run_texts(const Decoder& model, const RowBatch& batch, std::span<const std::vector<std::int32_t>> texts,
                     std::int64_t end, const std::function<void(std::int64_t layer, const LayerRows& rows)>& visit,
                     const std::stop_token& stop);

/// The batch of whole texts.
RowBatch whole_texts(const Decoder& model, std::span<const std::vector<std::int32_t>> texts);

}  // namespace rometrace
