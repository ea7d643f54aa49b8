#include "rometrace/facts/swap.hpp"

#include <algorithm>
#include <random>
#include <unordered_map>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/subject.hpp"

namespace rometrace {
namespace {

/// The numbers 0 .. size - 1 in random order, each drawn when it is asked for.
class Shuffle {
 public:
  Shuffle(std::size_t size, std::uint32_t seed, std::int64_t record) : size_(size) {
    const auto bits = static_cast<std::uint64_t>(record);
    std::seed_seq sequence{seed, static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32U)};
    engine_.seed(sequence);
  }

  bool done() const { return step_ == size_; }

  std::size_t next() {
    const std::uint64_t left = size_ - step_;
    const auto other = step_ + (std::uint64_t{static_cast<std::uint32_t>(engine_())} * left >> 32U);
    const auto drawn = at(other);
    moved_[other] = at(step_);
    ++step_;
    return drawn;
  }

 private:
  std::size_t at(std::size_t place) const {
    const auto found = moved_.find(place);
    return found == moved_.end() ? place : found->second;
  }

  std::mt19937 engine_;
  std::size_t size_;
  std::size_t step_ = 0;
  std::unordered_map<std::size_t, std::size_t> moved_;  // places that do not hold their own number any more
};

bool is_before(const Fact* one, const Fact* other) {
  return *one->object < *other->object;
}

bool is_word_end(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// What decides about the tokens of the subject's place in the fact's prompt: all that shares tokens with it, and where
/// these may not begin a word, the token before them.
struct Surroundings {
  std::string before, behind;
  std::size_t tokens = 0;  // of the subject
};

/// Throws Error.
Surroundings surroundings_of(const Tokenizer& tokenizer, const Fact& fact, SpecialTokens special) {
  const auto& wording = fact.wordings.front();
  const auto& prompt = wording.prompt;
  const auto& subject = wording.subject;
  const auto tokens = tokenizer.encode_prompt(prompt, special);
  const auto range = tokens_of_subject(tokens, prompt, subject);
  const auto end = std::max(tokens[range.end - 1].end, subject.end);
  auto begin = std::min(tokens[range.begin].begin, subject.begin);
  std::string front;
  if (begin < subject.begin && prompt[begin] == ' ' && begin > 0 && is_word_end(prompt[begin - 1])) {
    front = "a";  // any word does: that the space is not at the front of a text is what counts for SentencePiece
  } else if (range.begin > 0) {
    begin = std::min(begin, tokens[range.begin - 1].begin);
  }
  return {front + prompt.substr(begin, subject.begin - begin), prompt.substr(subject.end, end - subject.end),
          range.end - range.begin};
}

}  // namespace

SwapPartners::SwapPartners(const Facts& facts, const Tokenizer& tokenizer, const SwapOptions& options)
    : tokenizer_(tokenizer), options_(options) {
  for (const auto& record : facts.records) {
    const auto* fact = std::get_if<Fact>(&record);
    if (fact != nullptr && fact->relation && fact->object) by_relation_[*fact->relation].push_back(fact);
  }
}

std::size_t SwapPartners::tokens_of(const Place& place, const std::string& subject) const {
  const auto& [relation, before, behind] = place;
  return tokenizer_.encode(before + subject + behind, options_.special_tokens).size();
}

const SwapPartners::ByTokens& SwapPartners::by_tokens(const Place& place) const {
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = places_.try_emplace(place);
  if (!is_new) return entry->second;
  for (const auto* fact : by_relation_.at(std::get<0>(place))) {
    std::size_t tokens = 0;
    try {
      tokens = tokens_of(place, fact->subject);
    } catch (const Error&) {
      continue;  // a subject that cannot be tokenised is nobody's partner
    }
    auto& candidates = entry->second[tokens];
    candidates.facts.push_back(fact);
    candidates.one_subject = candidates.one_subject && fact->subject == candidates.facts.front()->subject;
  }
  for (auto& [tokens, candidates] : entry->second) {
    std::stable_sort(candidates.facts.begin(), candidates.facts.end(), &is_before);
  }
  return entry->second;
}

std::variant<Swap, NoSwap> SwapPartners::partner_of(const Fact& fact) const {
  if (!fact.relation) return NoSwap{"the record names no relation, in which a partner could be found"};
  if (!fact.object) return NoSwap{"the record has no object, from which a partner's could differ"};
  const auto& [relation, group] = *by_relation_.find(*fact.relation);
  const auto others = std::to_string(group.size() - 1) + (group.size() == 2 ? " other fact" : " other facts");
  if (group.size() == 1) return NoSwap{"no other fact of the relation " + in_quotes(relation) + " has an object"};
  const auto& wording = fact.wordings.front();
  try {
    const auto around = surroundings_of(tokenizer_, fact, options_.special_tokens);
    const Place place{relation, around.before, around.behind};
    const auto& candidates = by_tokens(place).at(tokens_of(place, fact.subject));
    const auto& facts = candidates.facts;
    const auto [own, own_end] = std::equal_range(facts.begin(), facts.end(), &fact, &is_before);
    const auto own_begin = static_cast<std::size_t>(own - facts.begin());
    const auto own_size = static_cast<std::size_t>(own_end - own);
    Shuffle order(candidates.one_subject ? 0 : facts.size() - own_size, options_.seed, fact.record);
    while (!order.done()) {
      const auto drawn = order.next();
      const auto& other = *facts[drawn < own_begin ? drawn : drawn + own_size];
      if (other.subject == fact.subject) continue;
      try {
        return Swap{&other, counter_prompt_of_subject(tokenizer_, wording.prompt, wording.subject, other.subject,
                                                      options_.special_tokens)};
      } catch (const Error&) {  // its tokens run together with others; the next one's may not
      }
    }
    return NoSwap{"of the " + others + " of the relation " + in_quotes(relation) +
                  ", none has another object and another subject of " + std::to_string(around.tokens) +
                  (around.tokens == 1 ? " token" : " tokens") + " in this prompt"};
  } catch (const Error& error) {
    return NoSwap{error.what()};
  }
}

}  // namespace rometrace
