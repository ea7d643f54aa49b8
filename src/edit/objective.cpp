#include "rometrace/edit/objective.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "edit/row_batch.hpp"
#include "rometrace/error.hpp"
#include "trace/layer_tape.hpp"

namespace rometrace {
namespace {

// A text with the object's tokens, but for the last, behind it.
std::vector<std::int32_t> with_object(const EditText& text, const EditRequest& request) {
  auto ids = text.token_ids;
  ids.insert(ids.end(), request.target_ids.begin(), request.target_ids.end() - 1);
  return ids;
}

// The two parts of the loss from logits: `of_object` [R K, V], text by text, and `of_subject` [1, V]. `start` is what
// the latter were without delta, as logarithms of probabilities, or undefined: then they are that.
struct LossParts {
  at::Tensor nll, kl, start;  // scalars in double, but for the last
};

LossParts loss_of(const at::Tensor& of_object, const at::Tensor& of_subject, const EditRequest& request,
                  const at::Tensor& start) {
  const auto texts = static_cast<std::int64_t>(request.texts.size());
  const auto targets = at::tensor(std::vector<std::int64_t>(request.target_ids.begin(), request.target_ids.end()))
                           .to(of_object.device())
                           .repeat({texts})
                           .view({-1, 1});
  LossParts parts;
  parts.nll = -at::log_softmax(of_object, -1, at::kDouble).gather(1, targets).mean();
  const auto now = at::log_softmax(of_subject, -1, at::kDouble);
  parts.start = start.defined() ? start : now.detach();
  parts.kl = (now.exp() * (now - parts.start)).sum();
  return parts;
}

at::Tensor on_cpu(const at::Tensor& rows) {
  return rows.detach().to(at::kDouble).cpu();
}

Site tapped(ValueSite site) {
  return site == ValueSite::kState ? Site::kState : Site::kMlpProduct;
}

class PlainObjective : public EditObjective {
 public:
  PlainObjective(const Decoder& model, const EditRequest& request, std::int64_t layer, ValueSite site,
                 std::stop_token stop)
      : model_(model), request_(request), layer_(layer), site_(site), stop_(std::move(stop)) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> keys, values;
    for (const auto& text : request.texts) {
      model_.forward(text.token_ids, 1, [&](Site at, std::int64_t of, at::Tensor& value) {
        if (stop_.stop_requested()) throw Interrupted();
        if (of != layer_) return;
        if (at == Site::kMlpHidden) keys.push_back(value.select(1, text.fact)[0]);
        if (at == tapped(site_)) values.push_back(value.select(1, text.fact)[0]);
      });
    }
    keys_ = on_cpu(at::stack(keys));
    values_ = on_cpu(at::stack(values));
    start_ = loss_of(logits_of_objects({}), logits_of_subject({}), request_, {}).start;
  }

  Loss evaluate(const at::Tensor& delta, double kl_factor, Gradient wanted) override {
    const at::AutoGradMode with_gradients(wanted == Gradient::kWanted);
    const auto leaf = delta.detach().to(model_.device(), model_.stream_dtype()).requires_grad_();
    const auto parts = loss_of(logits_of_objects(leaf), logits_of_subject(leaf), request_, start_);
    if (wanted == Gradient::kNotWanted) return {parts.nll.item<double>(), parts.kl.item<double>(), {}};
    const auto gradient = torch::autograd::grad({parts.nll + kl_factor * parts.kl}, {leaf}).front();
    return {parts.nll.item<double>(), parts.kl.item<double>(), on_cpu(gradient)};
  }

  const at::Tensor& keys() const override { return keys_; }
  const at::Tensor& values() const override { return values_; }

 private:
  // After the last `last` positions, [last, V].
  at::Tensor logits(const std::vector<std::int32_t>& ids, std::int64_t fact, std::int64_t last,
                    const at::Tensor& delta) const {
    const auto hidden = model_.forward(ids, 1, [&](Site at, std::int64_t of, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      if (!delta.defined() || of != layer_ || at != tapped(site_)) return;
      value = value.index_add(1, at::tensor({fact}).to(value.device()), delta.view({1, 1, -1}));
    });
    return model_.logits(hidden[0].slice(0, static_cast<std::int64_t>(ids.size()) - last));
  }

  at::Tensor logits_of_objects(const at::Tensor& delta) const {
    std::vector<at::Tensor> all;
    const auto K = static_cast<std::int64_t>(request_.target_ids.size());
    for (const auto& text : request_.texts) all.push_back(logits(with_object(text, request_), text.fact, K, delta));
    return at::cat(all);
  }

  at::Tensor logits_of_subject(const at::Tensor& delta) const {
    const auto& text = request_.subject_alone;
    return logits(text.token_ids, text.fact, 1, delta);
  }

  const Decoder& model_;
  const EditRequest& request_;
  std::int64_t layer_;
  ValueSite site_;
  std::stop_token stop_;
  at::Tensor keys_, values_, start_;
};

class FastObjective : public EditObjective {
 public:
  FastObjective(const Decoder& model, const EditRequest& request, std::int64_t layer, ValueSite site,
                std::stop_token stop)
      : model_(model),
        request_(request),
        layer_(layer),
        site_(site),
        stop_(std::move(stop)),
        texts_(parts_of(request)),
        from_fact_(parts_from_fact(), model.device()) {
    const at::NoGradGuard no_grad;
    run_once();
    const auto logits = logits_of(model_.leave(base_.index_select(0, read_rows_)));
    start_ = loss_of(logits.first, logits.second, request_, {}).start;
  }

  Loss evaluate(const at::Tensor& delta, double kl_factor, Gradient wanted) override {
    const at::AutoGradMode with_gradients(wanted == Gradient::kWanted);
    const auto leaf = delta.detach().to(model_.device(), model_.stream_dtype()).requires_grad_();
    const auto entering = entering_with(leaf);
    LayerTape tape(model_, wanted == Gradient::kWanted && !model_.streamed() ? LayerTape::Graphs::kKept
                                                                             : LayerTape::Graphs::kMadeAgain);
    auto x = entering.detach();
    for (auto layer = layer_ + 1; layer < model_.config().layers; ++layer) {
      x = tape.run(layer, x, [this](std::shared_ptr<const Block> block, const at::Tensor& input, std::int64_t of) {
        return after(std::move(block), input, of);
      });
    }
    x.requires_grad_();
    const auto logits =
        logits_of(model_.leave(layer_ + 1 < model_.config().layers ? x : x.index_select(0, read_rows_)));
    const auto parts = loss_of(logits.first, logits.second, request_, start_);
    if (wanted == Gradient::kNotWanted) return {parts.nll.item<double>(), parts.kl.item<double>(), {}};
    auto gradient = torch::autograd::grad({parts.nll + kl_factor * parts.kl}, {x}).front();
    gradient = torch::autograd::grad({entering}, {leaf}, {tape.backward(std::move(gradient))}).front();
    return {parts.nll.item<double>(), parts.kl.item<double>(), on_cpu(gradient)};
  }

  const at::Tensor& keys() const override { return keys_; }
  const at::Tensor& values() const override { return values_; }

 private:
  struct Text {
    std::vector<std::int32_t> ids;
    std::int64_t fact, reads;  // the head reads the last `reads` positions
  };

  // Those of the object, then the subject alone.
  static std::vector<Text> parts_of(const EditRequest& request) {
    std::vector<Text> texts;
    for (const auto& text : request.texts) {
      texts.push_back({with_object(text, request), text.fact, static_cast<std::int64_t>(request.target_ids.size())});
    }
    texts.push_back({request.subject_alone.token_ids, request.subject_alone.fact, 1});
    return texts;
  }

  std::vector<TextPart> parts_from_fact() const {
    std::vector<TextPart> parts;
    for (const auto& text : texts_)
      parts.push_back({text.fact, static_cast<std::int64_t>(text.ids.size()) - text.fact});
    return parts;
  }

  // All texts, whole and without delta: leaves the streams at the layer and what earlier positions lend above it.
  void run_once() {
    std::vector<std::vector<std::int32_t>> ids;
    for (const auto& text : texts_) ids.push_back(text.ids);
    const auto batch = whole_texts(model_, ids);
    std::vector<std::int64_t> facts, own(static_cast<std::size_t>(from_fact_.rows()));  // rows; of from_fact_ likewise
    std::vector<std::int64_t> facts_of_own, read;
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      facts.push_back(batch.begin(i) + texts_[i].fact);
      const auto begin = from_fact_.begin(i), length = static_cast<std::int64_t>(texts_[i].ids.size()) - texts_[i].fact;
      for (std::int64_t k = 0; k < length; ++k) own[static_cast<std::size_t>(begin + k)] = facts[i] + k;
      facts_of_own.push_back(begin);
      for (auto row = begin + length - texts_[i].reads; row < begin + length; ++row) read.push_back(row);
    }
    const auto device = model_.device();
    const auto fact_rows = at::tensor(facts).to(device), own_rows = at::tensor(own).to(device);
    fact_rows_ = at::tensor(facts_of_own).to(device);
    read_rows_ = at::tensor(read).to(device);

    const auto R = static_cast<std::int64_t>(request_.texts.size());
    const auto visit = [&](std::int64_t layer, const LayerRows& rows) {
      if (layer > layer_) {
        std::vector<at::Tensor> earlier;
        for (std::size_t i = 0; i < texts_.size(); ++i) {
          earlier.push_back(rows.keys_values.narrow(0, batch.begin(i), texts_[i].fact));
        }
        lent_.push_back(from_fact_.lent(earlier));
      }
      if (layer != layer_) return;
      at_layer_ = rows.block;
      between_ = rows.between.index_select(0, fact_rows);
      product_ = rows.product.index_select(0, fact_rows);
      states_ = rows.state.index_select(0, own_rows);
      keys_ = on_cpu(rows.hidden.index_select(0, fact_rows).slice(0, 0, R));
      values_ = on_cpu((site_ == ValueSite::kState ? rows.state.index_select(0, fact_rows) : product_).slice(0, 0, R));
    };
    base_ = run_texts(model_, batch, ids, model_.config().layers, visit, stop_).index_select(0, own_rows);
  }

  // The streams that enter the layer above, with delta at the fact's tokens.
  at::Tensor entering_with(const at::Tensor& delta) const {
    const auto& block = *at_layer_;
    const auto facts = site_ == ValueSite::kState ? states_.index_select(0, fact_rows_) + delta
                                                  : block.after_mlp(between_ + block.mlp_output_of(product_ + delta));
    return states_.index_copy(0, fact_rows_, facts);
  }

  at::Tensor after(std::shared_ptr<const Block> block, const at::Tensor& x, std::int64_t layer) const {
    if (stop_.stop_requested()) throw Interrupted();
    const bool is_last = layer == model_.config().layers - 1;  // of which only what is read counts
    return pass_layer(std::move(block), x, from_fact_, lent_[static_cast<std::size_t>(layer - layer_ - 1)],
                      is_last ? read_rows_ : at::Tensor())
        .state;
  }

  // Of the objects [R K, V], and after the subject alone [1, V].
  std::pair<at::Tensor, at::Tensor> logits_of(const at::Tensor& hidden) const {
    const auto all = model_.logits(hidden);
    const auto objects = all.size(0) - 1;
    return {all.slice(0, 0, objects), all.slice(0, objects)};
  }

  const Decoder& model_;
  const EditRequest& request_;
  std::int64_t layer_;
  ValueSite site_;
  std::stop_token stop_;
  std::vector<Text> texts_;
  RowBatch from_fact_;                         // of each text, positions from the fact's token on
  std::vector<std::vector<at::Tensor>> lent_;  // by layer above layer_
  std::shared_ptr<const Block> at_layer_;
  at::Tensor between_, product_;      // at the fact's tokens in layer_, [R + 1, D]
  at::Tensor states_, base_;          // after layer_, and after all layers: rows of from_fact_
  at::Tensor fact_rows_, read_rows_;  // of from_fact_
  at::Tensor keys_, values_, start_;
};

}  // namespace

std::string_view to_string(EditEngine engine) {
  return engine == EditEngine::kFast ? "fast" : "plain";
}

std::unique_ptr<EditObjective> plain_objective(const Decoder& model, const EditRequest& request, std::int64_t layer,
                                               ValueSite site, std::stop_token stop) {
  return std::make_unique<PlainObjective>(model, request, layer, site, std::move(stop));
}

std::unique_ptr<EditObjective> fast_objective(const Decoder& model, const EditRequest& request, std::int64_t layer,
                                              ValueSite site, std::stop_token stop) {
  return std::make_unique<FastObjective>(model, request, layer, site, std::move(stop));
}

std::unique_ptr<EditObjective> make_objective(EditEngine engine, const Decoder& model, const EditRequest& request,
                                              std::int64_t layer, ValueSite site, std::stop_token stop) {
  return engine == EditEngine::kFast ? fast_objective(model, request, layer, site, std::move(stop))
                                     : plain_objective(model, request, layer, site, std::move(stop));
}

}  // namespace rometrace
