#include "rometrace/edit/memit.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/stack.h>

#include <string>
#include <utility>

#include "edit/row_batch.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// The rows of one request's texts that an edit reads.
struct FactRows {
  at::Tensor key;    // [F], the mean over kinds of texts
  at::Tensor state;  // [D], of the bare prompt at the last layer's output
};

FactRows read_facts(const Decoder& model, const EditRequest& request, std::int64_t layer, std::int64_t last,
                    const std::stop_token& stop) {
  std::vector<std::vector<std::int32_t>> ids;
  for (const auto& text : request.texts) ids.push_back(text.token_ids);
  const auto batch = whole_texts(model, ids);
  const auto row_of = [&](const at::Tensor& rows, std::size_t text) {
    return rows[batch.begin(text) + request.texts[text].fact].to(at::kDouble).cpu();
  };
  FactRows read;
  run_texts(
      model, batch, ids, last + 1,
      [&](std::int64_t at, const LayerRows& rows) {
        if (at == last) read.state = row_of(rows.state, 0);
        if (at != layer) return;
        read.key = row_of(rows.hidden, 0);
        if (ids.size() == 1) return;
        std::vector<at::Tensor> behind;
        for (std::size_t i = 1; i < ids.size(); ++i) behind.push_back(row_of(rows.hidden, i));
        read.key = (read.key + at::stack(behind).mean(0)) / 2;
      },
      stop);
  return read;
}

}  // namespace

MemitEdit edit_memit(const Decoder& model, std::span<const EditRequest> requests, std::span<const std::int64_t> layers,
                     const ValueOptions& options, const AdjustedKeys& adjusted, const ChangedModel& changed,
                     std::stop_token stop, const EditProgress& progress) {
  MemitEdit edit;
  const auto last = layers.back();
  std::vector<at::Tensor> sought;
  for (const auto& request : requests) {
    if (progress) progress(static_cast<std::int64_t>(sought.size()), static_cast<std::int64_t>(requests.size()));
    auto value = seek_value(model, request, last, ValueSite::kState, options, stop);
    sought.push_back(value.values[0] + value.delta);
    edit.values.push_back(std::move(value));
  }
  if (progress) progress(static_cast<std::int64_t>(requests.size()), static_cast<std::int64_t>(requests.size()));
  const at::NoGradGuard no_grad;
  const auto wanted = at::stack(sought);  // [n, D]
  for (std::size_t i = 0; i < layers.size(); ++i) {
    std::shared_ptr<const Decoder> edited;
    if (i > 0) edited = changed(edit.changes);
    std::vector<at::Tensor> keys, now;
    for (const auto& request : requests) {
      auto rows = read_facts(edited ? *edited : model, request, layers[i], last, stop);
      keys.push_back(std::move(rows.key));
      now.push_back(std::move(rows.state));
    }
    const auto K = at::stack(keys);  // [n, F]
    const auto left = static_cast<double>(layers.size() - i);
    // What a matrix gives is scaled on its way into the stream.
    const auto missing = (wanted - at::stack(now)) / left / model.config().output_scale;
    LayerChange change{layers[i], adjusted(layers[i], K.t()).t().contiguous(), missing};
    if (!at::isfinite(change.u).all().item<bool>() || !at::isfinite(change.r).all().item<bool>()) {
      throw Error("the change of layer " + std::to_string(layers[i]) +
                  " is not finite; are the model's weights sound?");
    }
    edit.changes.push_back(std::move(change));
    edit.keys.push_back(K);
  }
  return edit;
}

}  // namespace rometrace
