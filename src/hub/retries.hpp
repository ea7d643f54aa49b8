#pragma once

#include <functional>
#include <random>
#include <stop_token>
#include <string>

#include "hub/http.hpp"

namespace rometrace {

/// Told, in one line, of what goes on (another try, waiting for another process).
using Note = std::function<void(const std::string&)>;

/// Enough tries were made, or the server asks to wait too long: it is not to be reached now.
class GaveUp : public Error {
 public:
  using Error::Error;
};

/// Pauses between the tries of one piece of work, each twice as long as the one before, and their end.
class Retries {
 public:
  /// `first_seconds`: the first pause, before it is shortened at random by up to a half.
  Retries(double first_seconds, Note note, std::stop_token stop);

  /// Something arrived: counting and pauses begin anew.
  void made_progress() { failures_ = 0; }

  /// Waits until the next try is due, at least as long as the server asked for. Throws GaveUp, which says how often it
  /// was tried, when there have been enough tries (6 without progress, or 3 that reached nobody) or the server asks
  /// for more than ten minutes; Interrupted.
  void wait_after(const TransientFailure& failure);

 private:
  double next_pause(const TransientFailure& failure);

  double first_seconds_;
  Note note_;
  std::stop_token stop_;
  int failures_ = 0;
  bool reached_ = false;  ///< whether the server ever answered
  std::minstd_rand random_;
};

/// Makes the attempt until it throws no TransientFailure; throws as Retries::wait_after() does.
template <typename Attempt>
auto retry(Retries& retries, Attempt attempt) {
  for (;;) {
    try {
      return attempt();
    } catch (const TransientFailure& failure) {
      retries.wait_after(failure);
    }
  }
}

}  // namespace rometrace
