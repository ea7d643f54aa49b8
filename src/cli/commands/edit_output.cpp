#include "cli/commands/edit_output.hpp"

#include <spdlog/spdlog.h>

#include <string>

#include "rometrace/report/edit_text.hpp"

namespace rometrace::cli {
namespace {

std::string head_of(const Edit& edit, const std::string& model) {
  std::string matrices;
  for (const auto& matrix : edit.matrices) {
    matrices += (matrices.empty() ? "" : ", ") + fmt::format("layer {}, |dW|/|W| {:.3g}", matrix.change.layer,
                                                             matrix.change_norm / matrix.original_norm);
  }
  return edit.method + " in " + model + ": " + matrices;
}

void say_ratio(const MadeEdit& made) {
  for (const auto& fact : made.facts) {
    if (fact.key_ratio) spdlog::debug("key ratio {:.3g}, divisor {:.4g}", *fact.key_ratio, *fact.divisor);
  }
}

}  // namespace

EditOutput::EditOutput(const EditOptions& options) : report_(std::nullopt, options.run.json) {
  if (options.run.output && *options.run.output != "-") file_.emplace(*options.run.output);
}

void EditOutput::write(EditSession& session, const MadeEdit& made, std::span<const std::int64_t> layers,
                       const Further& further, const std::stop_token& stop) {
  say_ratio(made);
  auto edit = session.record(made, layers);
  const auto perplexity = session.perplexity_of(session.model(), *made.model);
  edit.perplexity = {{"text", perplexity.text}, {"before", perplexity.before}, {"after", perplexity.after}};
  edit.model.weights_sha256 = session.weights_sha256();
  auto json = to_json(edit);
  if (file_) {
    file_->write(edit_file_bytes(edit), stop);
  } else {
    spdlog::info("the edit is not kept; -o FILE writes it");
  }
  if (further) further(edit, json);
  if (file_) file_->commit();
  report_.write(
      json,
      [&](const TerminalStyle& style) {
        return render_edit(made.facts, head_of(edit, session.located().name), perplexity, session.tokenizer(), style);
      },
      stop);
}

}  // namespace rometrace::cli
