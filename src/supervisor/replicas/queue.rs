//! What this process still has to tell the others, in order.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::news::News;

/// News beyond this many are replaced by [`News::Everything`].
const MOST: usize = 65_536;

/// So many news are told at a time.
const AT_ONCE: usize = 4_096;

#[derive(Default)]
pub(in crate::supervisor) struct NewsQueue {
    waiting: Mutex<Untold>,
    /// Changes whenever there is something to tell, or the queue closes.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Untold {
    news: VecDeque<News>,
    /// The number of the first one: each has its own.
    first: u64,
    is_closing: bool,
}

/// News that are to be told, up to a number.
pub(in crate::supervisor) struct Batch {
    pub(in crate::supervisor) news: Vec<News>,
    end: u64,
}

impl NewsQueue {
    pub(in crate::supervisor) fn put(&self, news: News) {
        let mut waiting = self.lock();
        if waiting.news.len() >= MOST {
            waiting.first += waiting.news.len() as u64;
            waiting.news.clear();
            waiting.news.push_back(News::Everything);
        }
        waiting.news.push_back(news);
        drop(waiting);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Returns what is to be told next, once there is something; `None` if there is nothing left and the queue closes. It stays
    /// here until it was [`told`](Self::told).
    pub(in crate::supervisor) async fn next(&self) -> Option<Batch> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let waiting = self.lock();
                if !waiting.news.is_empty() {
                    let news: Vec<_> = waiting.news.iter().take(AT_ONCE).cloned().collect();
                    return Some(Batch { end: waiting.first + news.len() as u64, news });
                }
                if waiting.is_closing {
                    return None;
                }
            }
            // The sender is here.
            changed.changed().await.ok();
        }
    }

    /// Removes news that were told.
    pub(in crate::supervisor) fn told(&self, batch: &Batch) {
        let mut waiting = self.lock();
        while waiting.first < batch.end && waiting.news.pop_front().is_some() {
            waiting.first += 1;
        }
    }

    /// Closes the queue once everything in it was told.
    pub(in crate::supervisor) fn close(&self) {
        self.lock().is_closing = true;
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether everything was told.
    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.lock().news.is_empty()
    }

    /// Resolves when the queue is closing.
    pub(in crate::supervisor) async fn closing(&self) {
        let mut changed = self.changed.subscribe();
        while !self.lock().is_closing {
            changed.changed().await.ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Untold> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_stay_until_they_were_told_and_keep_their_order() {
        let queue = NewsQueue::default();
        (0..3).for_each(|number| queue.put(News::Echo(number)));
        let first = queue.next().await.unwrap();
        assert_eq!(first.news, [News::Echo(0), News::Echo(1), News::Echo(2)]);
        queue.put(News::Echo(3));
        assert_eq!(queue.next().await.unwrap().news.len(), 4, "it was not told");
        queue.told(&first);
        queue.told(&first);
        assert_eq!(queue.next().await.unwrap().news, [News::Echo(3)]);
    }

    #[tokio::test]
    async fn it_closes_once_everything_was_told() {
        let queue = NewsQueue::default();
        queue.put(News::Holds);
        queue.close();
        queue.closing().await;
        let last = queue.next().await.unwrap();
        queue.told(&last);
        assert!(queue.next().await.is_none() && queue.is_empty());
    }

    #[tokio::test]
    async fn too_many_news_become_one_that_says_everything() {
        let queue = NewsQueue::default();
        queue.put(News::Echo(0));
        let early = queue.next().await.unwrap();
        (1..=MOST as u64).for_each(|number| queue.put(News::Echo(number)));
        queue.told(&early);
        assert_eq!(queue.next().await.unwrap().news, [News::Everything, News::Echo(MOST as u64)]);
    }
}
