#include "rometrace/report/token_texts.hpp"

namespace rometrace {

TokenTexts token_texts(const Trace& trace, const TracePrompt& prompt, const Tokenizer& tokenizer) {
  TokenTexts texts;
  texts.prompt.reserve(prompt.token_ids.size());
  for (const auto id : prompt.token_ids) {
    texts.prompt.push_back(tokenizer.token_bytes(id));
  }
  for (const auto id : trace.answer_ids) texts.answer += tokenizer.token_bytes(id);
  if (trace.prediction_id < tokenizer.size()) texts.prediction = tokenizer.token_bytes(trace.prediction_id);
  for (const auto id : prompt.other_targets) texts.other_targets.push_back(tokenizer.token_bytes(id));
  if (prompt.foil) texts.foil = tokenizer.token_bytes(*prompt.foil);
  for (const auto id : prompt.counter_ids) texts.counter.push_back(tokenizer.token_bytes(id));
  if (trace.neurons) {
    for (const auto& effect : trace.neurons->effects) {
      for (const auto* tokens : {&effect.promotes, &effect.suppresses}) {
        for (const auto& token : *tokens) {
          if (token.id < tokenizer.size()) texts.of_neurons.emplace(token.id, tokenizer.token_bytes(token.id));
        }
      }
    }
  }
  return texts;
}

}  // namespace rometrace
